"""Losses: embeddings of pairs -> a scalar."""

from mmpt_plugin.criterions.nce import NCE, NCEConfig

__all__ = ["NCE", "NCEConfig"]
