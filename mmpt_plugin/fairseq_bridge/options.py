"""fairseq's own configuration keys, with the help texts of its dataclasses."""

import dataclasses
import typing
from collections.abc import Iterator
from typing import Any

from fairseq.dataclass.configs import FairseqConfig
from fairseq.registry import REGISTRIES

from mmpt_plugin.config import FAIRSEQ_SECTIONS
from mmpt_plugin.fairseq_bridge import install
from mmpt_plugin.fairseq_bridge.flags import GROUPS

# This project adds lr_scheduler.warmup_fraction to every schedule of fairseq: see `fit_schedule`.
WARMUP_FRACTION = "share of all updates, 0 to 1, in which the learning rate rises; instead of warmup_updates"


def fairseq_options() -> Iterator[tuple[str, str, str, Any, Any, str]]:
    """Section, component ("" for none), key, type, default and help of every key that training reads.

    A default may be an interpolation such as `${optimization.lr}`. The help is empty if fairseq has none.
    """
    install()
    for group in dataclasses.fields(FairseqConfig):
        if group.name in GROUPS:
            yield from options_of(group.name, "", group.type)
    for section in FAIRSEQ_SECTIONS:
        for name, config in sorted(REGISTRIES[section]["dataclass_registry"].items()):
            yield from options_of(section, name, config)
            if section == "lr_scheduler":
                yield section, name, "warmup_fraction", float, 0.0, WARMUP_FRACTION


def component_keys(section: str, name: str) -> set[str] | None:
    """The keys of a component of fairseq, such as `lr_scheduler` `cosine`; None for an unknown name."""
    install()
    config = REGISTRIES[section]["dataclass_registry"].get(name)
    if config is None:
        return None
    extra = {"warmup_fraction"} if section == "lr_scheduler" else set()
    return {"_name", *extra, *(field.name for field in dataclasses.fields(config))}


def options_of(section: str, component: str, config: Any) -> Iterator[tuple[str, str, str, Any, Any, str]]:
    """The keys of one of fairseq's dataclasses."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        if not field.name.startswith("_"):
            default = field.default if field.default_factory is dataclasses.MISSING else field.default_factory()
            help_text = str(field.metadata.get("help") or "")
            yield section, component, field.name, hints[field.name], default, help_text
