"""Our typed configurations as fairseq's: flags for `fairseq-train`, nodes for its Hydra configuration."""

import dataclasses
import types
import typing
from typing import Any, Optional

import yaml
from fairseq.dataclass import FairseqDataclass

from mmpt_plugin.registry import Entry


def fairseq_dataclass(entry: Entry, name: str, extra: tuple[tuple[str, type, Any], ...] = ()) -> type:
    """A FairseqDataclass with the fields of the entry's config, and `extra` (name, type, default) ones.

    fairseq knows neither `X | None` nor mappings: the one becomes Optional[X], the other a string of YAML.
    """
    hints = typing.get_type_hints(entry.config)
    members = []
    for config_field in dataclasses.fields(entry.config):
        default, hint = written_default(config_field), hints[config_field.name]
        if is_mapping(hint):
            hint, default = str, flow(default)
        elif isinstance(hint, types.UnionType):
            hint = Optional[next(t for t in hint.__args__ if t is not type(None))]  # noqa: UP045
        metadata = {"help": f"{entry.cls.__name__}.{config_field.name}"}
        members.append((config_field.name, hint, dataclasses.field(default=default, metadata=metadata)))
    members += [(key, hint, dataclasses.field(default=default)) for key, hint, default in extra]
    return dataclasses.make_dataclass(name, members, bases=(FairseqDataclass,), namespace={"__module__": __name__})


def written_default(config_field: Any) -> Any:
    """The default as the class states it, before any `__post_init__` made something of it."""
    factory = config_field.default_factory
    return config_field.default if factory is dataclasses.MISSING else factory()


def core_config(entry: Entry, config: Any) -> Any:
    """The component's own config from what fairseq hands over; strings of YAML become mappings again."""
    hints = typing.get_type_hints(entry.config)
    values = {}
    for key, hint in hints.items():
        value = getattr(config, key)
        values[key] = parse_flow(key, value) if is_mapping(hint) else value
    return entry.config(**values)


def is_mapping(hint: Any) -> bool:
    return typing.get_origin(hint) is dict


def flow(value: Any) -> str:
    """A mapping as one line of YAML, `{_name: uniform, videos_per_batch: 32}`."""
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False).strip()


def parse_flow(key: str, text: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ValueError(f"--{key.replace('_', '-')} is no YAML: {text}") from error
    if not isinstance(value, dict):
        raise ValueError(f"--{key.replace('_', '-')} must be a mapping such as {{_name: ...}}, got {text}")
    return value
