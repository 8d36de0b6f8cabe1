"""Vectors -> nearest videos."""

from mmpt_plugin.index.nearest import nearest

__all__ = ["nearest"]
