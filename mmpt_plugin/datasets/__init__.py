"""Corpora."""

from mmpt_plugin.datasets.captioned_clips import CaptionedClips, CaptionedClipsConfig
from mmpt_plugin.datasets.coin import COIN, COINConfig
from mmpt_plugin.datasets.crosstask import CrossTask, CrossTaskConfig
from mmpt_plugin.datasets.didemo import DiDeMo, DiDeMoConfig, DiDeMoMoments
from mmpt_plugin.datasets.jsonl import JSONLClips, JSONLConfig
from mmpt_plugin.datasets.labelled_videos import (
    HMDB51,
    UCF101,
    HMDB51Config,
    Kinetics,
    LabelledCSV,
    UCF101Config,
)
from mmpt_plugin.datasets.labelled_windows import LabelledWindows, LabelledWindowsConfig
from mmpt_plugin.datasets.msrvtt import MSRVTT, MSRVTTConfig, MSRVTTMultipleChoice, MSRVTTMultipleChoiceConfig
from mmpt_plugin.datasets.msvd import MSVD, MSVDConfig
from mmpt_plugin.datasets.overlapped_clips import OverlappedClips, OverlappedClipsConfig
from mmpt_plugin.datasets.step_windows import StepWindows
from mmpt_plugin.datasets.vatex import VATEX, VATEXConfig
from mmpt_plugin.datasets.youcook2 import YouCook2, YouCook2Config

__all__ = [
    "COIN",
    "HMDB51",
    "MSRVTT",
    "MSVD",
    "UCF101",
    "VATEX",
    "COINConfig",
    "CaptionedClips",
    "CaptionedClipsConfig",
    "CrossTask",
    "CrossTaskConfig",
    "DiDeMo",
    "DiDeMoConfig",
    "DiDeMoMoments",
    "HMDB51Config",
    "JSONLClips",
    "JSONLConfig",
    "Kinetics",
    "LabelledCSV",
    "LabelledWindows",
    "LabelledWindowsConfig",
    "MSRVTTConfig",
    "MSRVTTMultipleChoice",
    "MSRVTTMultipleChoiceConfig",
    "MSVDConfig",
    "OverlappedClips",
    "OverlappedClipsConfig",
    "StepWindows",
    "UCF101Config",
    "VATEXConfig",
    "YouCook2",
    "YouCook2Config",
]
