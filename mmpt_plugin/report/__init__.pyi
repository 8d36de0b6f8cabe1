from .curve import write_curve as write_curve
from .page import write_page as write_page
from .table import metrics_table as metrics_table
from .table import not_there_table as not_there_table
from .timeline import has_timelines as has_timelines
from .timeline import write_timelines as write_timelines
