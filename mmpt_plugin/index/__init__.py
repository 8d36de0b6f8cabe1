"""Nearest-neighbor search in video embeddings."""

from mmpt_plugin.index.build import Index, build_index
from mmpt_plugin.index.ranks import SharedQueries, SharedVectors

__all__ = ["Index", "SharedQueries", "SharedVectors", "build_index"]
