"""What a person looks at after a run."""

from mmpt_plugin.report.curve import write_curve
from mmpt_plugin.report.page import write_page
from mmpt_plugin.report.table import metrics_table, not_there_table
from mmpt_plugin.report.timeline import has_timelines, write_timelines

__all__ = ["has_timelines", "metrics_table", "not_there_table", "write_curve", "write_page", "write_timelines"]
