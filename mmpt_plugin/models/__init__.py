"""Models: batches -> embeddings."""

from mmpt_plugin.models.segmenter import VideoCLIPSegmenter, VideoCLIPSegmenterConfig
from mmpt_plugin.models.step_localizer import VideoCLIPStepLocalizer
from mmpt_plugin.models.videoclip import VideoCLIP, VideoCLIPConfig

__all__ = ["VideoCLIP", "VideoCLIPConfig", "VideoCLIPSegmenter", "VideoCLIPSegmenterConfig", "VideoCLIPStepLocalizer"]
