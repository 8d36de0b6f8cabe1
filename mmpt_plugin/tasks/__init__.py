"""Kinds of task."""

from mmpt_plugin.tasks.classification import ZeroShotClassification, ZeroShotClassificationConfig
from mmpt_plugin.tasks.finetuning import FineTuning, FineTuningTaskConfig
from mmpt_plugin.tasks.localization import StepLocalization, StepLocalizationConfig
from mmpt_plugin.tasks.moments import MomentLocalization, MomentLocalizationConfig
from mmpt_plugin.tasks.pretraining import VideoTextPretraining, VideoTextPretrainingConfig
from mmpt_plugin.tasks.question_answering import MultipleChoiceQA, MultipleChoiceQAConfig
from mmpt_plugin.tasks.retrieval import TextVideoRetrieval, TextVideoRetrievalConfig
from mmpt_plugin.tasks.segmentation import ActionSegmentation, ActionSegmentationConfig

__all__ = [
    "ActionSegmentation",
    "ActionSegmentationConfig",
    "FineTuning",
    "FineTuningTaskConfig",
    "MomentLocalization",
    "MomentLocalizationConfig",
    "MultipleChoiceQA",
    "MultipleChoiceQAConfig",
    "StepLocalization",
    "StepLocalizationConfig",
    "TextVideoRetrieval",
    "TextVideoRetrievalConfig",
    "VideoTextPretraining",
    "VideoTextPretrainingConfig",
    "ZeroShotClassification",
    "ZeroShotClassificationConfig",
]
