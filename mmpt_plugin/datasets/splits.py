"""Data sets of several splits, each a part of the configuration."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmpt_plugin.corpora.corpus import AnyCorpus, build_corpus
from mmpt_plugin.errors import unknown_name


@dataclass(kw_only=True)
class FineTuningConfig:
    """Data sets whose splits are corpora."""

    splits: dict[str, Any] = field(default_factory=dict)
    """Corpus of each split: `{train: {_name: msrvtt, ...}, valid: {...}}`."""


def build_split(config: FineTuningConfig, split: str, kind: type[AnyCorpus], *, needs: str) -> AnyCorpus:
    """The corpus of a split; ValueError for one without the attribute `needs`, which corpora like `kind` have."""
    return build_corpus(of_split(config.splits, split), kind, needs=needs)


def of_split(splits: Mapping[str, Any], split: str) -> Any:
    """What `dataset.splits` says of a split."""
    if split not in splits:
        raise ValueError(unknown_name("split", f"{split} in dataset.splits", list(splits), guess=split))
    return splits[split]
