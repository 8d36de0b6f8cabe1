"""Kinds of task."""

from mmpt_plugin.tasks.pretraining import VideoTextPretraining, VideoTextPretrainingConfig
from mmpt_plugin.tasks.retrieval import TextVideoRetrieval, TextVideoRetrievalConfig

__all__ = [
    "TextVideoRetrieval",
    "TextVideoRetrievalConfig",
    "VideoTextPretraining",
    "VideoTextPretrainingConfig",
]
