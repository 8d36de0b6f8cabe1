"""Data sets with one corpus per split."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmpt_plugin.corpora.corpus import AnyCorpus, build_corpus
from mmpt_plugin.errors import unknown_name


@dataclass(kw_only=True)
class FineTuningConfig:
    """The base of fine-tuning data sets, whose splits are corpora."""

    splits: dict[str, Any] = field(default_factory=dict)
    """Corpus of each split: `{train: {_name: msrvtt, ...}, valid: {...}}`."""


def build_split(config: FineTuningConfig, split: str, kind: type[AnyCorpus], *, needs: str) -> AnyCorpus:
    """The corpus of a split; ValueError for one without the attribute `needs`, which corpora like `kind` have."""
    return build_corpus(of_split(config.splits, split), kind, needs=needs)


def of_split(splits: Mapping[str, Any], split: str) -> Any:
    """The entry of `dataset.splits` for a split; ValueError, with the closest match, if there is none."""
    if split not in splits:
        raise ValueError(f"dataset.splits: {unknown_name('split', split, list(splits))}")
    return splits[split]
