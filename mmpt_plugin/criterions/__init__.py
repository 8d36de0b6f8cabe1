"""Losses: what a model makes of a batch -> a scalar."""

from mmpt_plugin.criterions.frame_cross_entropy import FrameCrossEntropy, FrameCrossEntropyConfig
from mmpt_plugin.criterions.nce import NCE, NCEConfig
from mmpt_plugin.criterions.step_cross_entropy import StepCrossEntropy, StepCrossEntropyConfig

__all__ = [
    "NCE",
    "FrameCrossEntropy",
    "FrameCrossEntropyConfig",
    "NCEConfig",
    "StepCrossEntropy",
    "StepCrossEntropyConfig",
]
