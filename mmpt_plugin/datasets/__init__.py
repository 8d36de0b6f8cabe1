"""Corpora."""

from mmpt_plugin.datasets.jsonl import JSONLClips, JSONLConfig
from mmpt_plugin.datasets.overlapped_clips import OverlappedClips, OverlappedClipsConfig

__all__ = ["JSONLClips", "JSONLConfig", "OverlappedClips", "OverlappedClipsConfig"]
