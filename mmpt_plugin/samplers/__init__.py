"""Samplers: (epoch, seed) -> clusters of videos."""

from mmpt_plugin.samplers.retrieval_augmented import RetrievalAugmented, RetrievalAugmentedConfig
from mmpt_plugin.samplers.uniform import Uniform, UniformConfig

__all__ = ["RetrievalAugmented", "RetrievalAugmentedConfig", "Uniform", "UniformConfig"]
