"""Losses: what a model makes of a batch -> a scalar."""

from mmpt_plugin.criterions.candidates import MILNCE, BestFitNCE, CandidateNCEConfig
from mmpt_plugin.criterions.criterion import Criterion
from mmpt_plugin.criterions.frame_cross_entropy import FrameCrossEntropy, FrameCrossEntropyConfig
from mmpt_plugin.criterions.nce import NCE, NCEConfig
from mmpt_plugin.criterions.sigmoid import Sigmoid, SigmoidConfig
from mmpt_plugin.criterions.step_cross_entropy import StepCrossEntropy, StepCrossEntropyConfig

__all__ = [
    "MILNCE",
    "NCE",
    "BestFitNCE",
    "CandidateNCEConfig",
    "Criterion",
    "FrameCrossEntropy",
    "FrameCrossEntropyConfig",
    "NCEConfig",
    "Sigmoid",
    "SigmoidConfig",
    "StepCrossEntropy",
    "StepCrossEntropyConfig",
]
