"""The flags of `fairseq-train`: one name belongs to one component, because fairseq silently keeps one of two."""

import dataclasses
from collections import defaultdict
from collections.abc import Iterator
from functools import cache
from typing import Any

from fairseq.dataclass.configs import FairseqConfig
from fairseq.registry import REGISTRIES

from mmpt_plugin.config import FAIRSEQ_SECTIONS
from mmpt_plugin.registry import Entry

GROUPS = ("common", "distributed_training", "dataset", "optimization", "checkpoint", "bmuf", "ema")


def claim_flags(entry: Entry[Any]) -> None:
    """Reserve the flags of a component; ValueError if one is fairseq's, or of another kind of component.

    Components of one kind may share a flag, because a command has only one of each kind.
    """
    for field in dataclasses.fields(entry.config):
        taken = next((owner for kind, owner in owners()[field.name].items() if kind != entry.kind), None)
        if taken is not None:
            raise ValueError(
                f"{entry.kind} '{entry.name}': {entry.config.__name__}.{field.name} has the flag of {taken}, and "
                f"fairseq-train would set only one of them with --{field.name.replace('_', '-')}: rename it"
            )
    for field in dataclasses.fields(entry.config):
        owners()[field.name].setdefault(entry.kind, f"{entry.kind} '{entry.name}'")


@cache
def owners() -> defaultdict[str, dict[str, str]]:
    """Name of a setting -> kind of its owner -> the owner; at first those of fairseq."""
    names: defaultdict[str, dict[str, str]] = defaultdict(dict)
    for owner, config in configs_of_fairseq():
        for field in dataclasses.fields(config):
            names[field.name].setdefault("fairseq", owner)
    del names["_name"]
    return names


def configs_of_fairseq() -> Iterator[tuple[str, Any]]:
    """fairseq's sections and components for training, with their dataclasses."""
    for group in dataclasses.fields(FairseqConfig):
        if group.name in GROUPS:
            yield f"fairseq ({group.name})", group.type
    for section in FAIRSEQ_SECTIONS:
        for name, config in REGISTRIES[section]["dataclass_registry"].items():
            if config is not None:
                yield f"fairseq ({section} {name})", config
