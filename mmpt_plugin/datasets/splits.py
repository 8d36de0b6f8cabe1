"""Data sets with one corpus per split."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmpt_plugin import registry
from mmpt_plugin.errors import unknown_name


@dataclass(kw_only=True)
class FineTuningConfig:
    """The base of fine-tuning data sets, whose splits are corpora."""

    splits: dict[str, Any] = field(default_factory=dict)
    """Corpus of each split: `{train: {_name: msrvtt, ...}, valid: {...}}`."""


def build_split(config: FineTuningConfig, split: str) -> Any:
    """Build the corpus of a split; ValueError, with the closest match, for a split that is not configured."""
    return registry.corpora.build(of_split(config.splits, split))


def of_split(splits: Mapping[str, Any], split: str) -> Any:
    """The entry of `dataset.splits` for a split; ValueError, with the closest match, if there is none."""
    if split not in splits:
        raise ValueError(f"dataset.splits: {unknown_name('split', split, list(splits))}")
    return splits[split]
