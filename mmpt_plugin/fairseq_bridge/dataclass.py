"""Convert configuration dataclasses to fairseq's: flags for `fairseq-train`, nodes for its Hydra configuration."""

import dataclasses
import types
import typing
from typing import Any, Optional

import yaml
from fairseq.dataclass import FairseqDataclass

from mmpt_plugin.fairseq_bridge.flags import claim_flags
from mmpt_plugin.registry import Entry
from mmpt_plugin.yaml_files import parse_yaml


def fairseq_dataclass(entry: Entry[Any], name: str, extra: tuple[tuple[str, type, Any], ...] = ()) -> type:
    """A FairseqDataclass with the fields of the entry's config and the `extra` fields (name, type, default).

    fairseq supports neither `X | None`, which becomes Optional[X], nor mappings and lists, which become YAML strings.
    ValueError for a field whose flag another component has.
    """
    claim_flags(entry)
    hints = typing.get_type_hints(entry.config)
    members = []
    for config_field in dataclasses.fields(entry.config):
        default, hint = written_default(config_field), hints[config_field.name]
        if is_container(hint):
            hint, default = str, flow(default)
        elif isinstance(hint, types.UnionType):
            hint = Optional[next(t for t in hint.__args__ if t is not type(None))]  # noqa: UP045
        metadata = {"help": f"{entry.cls.__name__}.{config_field.name}"}
        members.append((config_field.name, hint, dataclasses.field(default=default, metadata=metadata)))
    members += [(key, hint, dataclasses.field(default=default)) for key, hint, default in extra]
    return dataclasses.make_dataclass(name, members, bases=(FairseqDataclass,), namespace={"__module__": __name__})


def written_default(config_field: Any) -> Any:
    """The default in the class definition, before any `__post_init__` changes it."""
    factory = config_field.default_factory
    return config_field.default if factory is dataclasses.MISSING else factory()


def core_config(entry: Entry[Any], config: Any) -> Any:
    """The component's config from fairseq's; YAML strings become mappings and lists again."""
    hints = typing.get_type_hints(entry.config)
    values = {}
    for key in (config_field.name for config_field in dataclasses.fields(entry.config)):
        value, hint = getattr(config, key), hints[key]
        values[key] = parse_flow(key, value, typing.get_origin(hint)) if is_container(hint) else value
    return entry.config(**values)


def is_container(hint: Any) -> bool:
    """Whether a type hint is a dict or a list, which a flag takes as one line of YAML."""
    return typing.get_origin(hint) in (dict, list)


def flow(value: Any) -> str:
    """A mapping or a list as one line of YAML, `{_name: uniform, cluster_size: 32}`."""
    return yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False).strip()


def parse_flow(key: str, text: str, kind: type) -> Any:
    """The reverse of `flow`; ValueError, naming the flag, if the text is not YAML or not of this kind."""
    try:
        value = parse_yaml(text, key)
    except ValueError as error:
        raise ValueError(f"--{key.replace('_', '-')} is not valid YAML: {text}") from error
    if not isinstance(value, kind):
        wanted = "a mapping such as {_name: ...}" if kind is dict else "a list such as [a, b]"
        raise ValueError(f"--{key.replace('_', '-')} must be {wanted}, got {text}")
    return value
