"""Configuration keys, with the type, the default and the docstring of the dataclass field that defines each."""

import ast
import dataclasses
import enum
import importlib
import importlib.util
import inspect
import textwrap
import types
import typing
from collections.abc import Iterator, Sequence
from functools import cache
from itertools import pairwise
from typing import Any

import yaml

from mmpt_plugin import registry
from mmpt_plugin.registry import Entry

REQUIRED = "required"

# Section of a project's YAML, or option, for the settings of each kind of component.
SECTIONS = {
    "model": "model",
    "criterion": "criterion",
    "task": "task",
    "dataset": "task.dataset",
    "corpus": "task.dataset",
    "sampler": "sampler",
    "encoder": "encoder",
    "store": "store",
}
SLURM = "mmpt_plugin.launch.profile:Profile"
# Dataclasses that are arguments of functions, and the command whose options set them.
SETTINGS = {
    "mmpt_plugin.shards.make:CaptionLimits": "mmpt shard",
    "mmpt_plugin.video.frame_cache:FrameSettings": "mmpt cache-frames",
}


@dataclasses.dataclass(frozen=True)
class Key:
    """One configuration key and its documentation."""

    path: str
    """Path in an override: `criterion.temperature`."""
    type: str
    """Type in YAML terms: `float`, `str or null`, `list of str`, `mapping`."""
    default: str
    """Default in YAML; `required` if there is none."""
    doc: str
    """Docstring of the field, on one line."""
    kind: str
    """Kind of the component that has the key, such as `criterion`; otherwise slurm, settings or fairseq."""
    component: str = ""
    """Name of that component, such as `nce`; empty for sections without `_name`."""

    @property
    def section(self) -> str:
        """The path without its last part."""
        return self.path.rpartition(".")[0]

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rpartition(".")[2]


def keys() -> list[Key]:
    """The keys of all registered components, of SLURM profiles and of `SETTINGS`; see `fairseq_keys` for fairseq's.

    The keys of profiles are omitted if submitit is not installed.
    """
    found = [key for kind, entry in components() for key in keys_of(entry.config, SECTIONS[kind], kind, entry.name)]
    if importlib.util.find_spec("submitit"):  # mmpt_plugin.launch imports it
        found += keys_of(load(SLURM), "slurm", "slurm")
    for place, command in SETTINGS.items():
        found += keys_of(load(place), load(place).__name__, "settings", command)
    return found


def fairseq_keys() -> list[Key]:
    """fairseq's keys, with the help texts of its dataclasses; an empty list if fairseq is not installed."""
    if not importlib.util.find_spec("fairseq"):
        return []
    from mmpt_plugin.fairseq_bridge.options import fairseq_options

    return [
        Key(f"{section}.{name}", type_name(hint), written(default), one_line(doc), "fairseq", component)
        for section, component, name, hint, default, doc in fairseq_options()
    ]


def components() -> Iterator[tuple[str, Entry[Any]]]:
    """Yield the kind and the entry of every registered component."""
    for kind in registry.REGISTRIES:
        for name in kind:
            yield kind.kind, kind[name]


def keys_of(config: type, prefix: str, kind: str, component: str = "") -> Iterator[Key]:
    """Yield the keys of a dataclass, including inherited ones; keys of a nested dataclass follow that of its field."""
    hints = typing.get_type_hints(config)
    for field in dataclasses.fields(config):
        path, hint = f"{prefix}.{field.name}", hints[field.name]
        yield Key(path, type_name(hint), default_of(field), field_doc(config, field.name), kind, component)
        for inner in filter(dataclasses.is_dataclass, (hint, *typing.get_args(hint))):
            yield from keys_of(typing.cast(type, inner), path, kind, component)


def field_doc(config: type, name: str) -> str:
    """The docstring of a field, on one line: the string literal after it, in the class or its nearest base with one."""
    return next((docs[name] for cls in config.__mro__ if name in (docs := field_docs(cls))), "")


@cache
def field_docs(cls: type) -> dict[str, str]:
    """Field -> the string literal that follows it in the source of the class; empty if the source is unavailable."""
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(cls)))
    except (OSError, TypeError):  # defined in an interactive shell, or built-in
        return {}
    docs = {}
    for field, after in pairwise(getattr(tree.body[0], "body", [])):
        match field, after:
            case ast.AnnAssign(target=ast.Name(id=name)), ast.Expr(value=ast.Constant(value=str(doc))):
                docs[name] = one_line(doc)
    return docs


def own_doc(cls: Any) -> str:
    """The docstring of a class; "" if it is only the signature that `dataclass` generates."""
    doc = inspect.cleandoc(cls.__doc__ or "")
    return "" if doc.startswith(f"{cls.__name__}(") else doc


def one_line(text: str) -> str:
    """Text with each run of whitespace replaced by one space."""
    return " ".join(text.split())


def default_of(field: "dataclasses.Field[Any]") -> str:
    """The default of a field as YAML; `required` if there is none."""
    if field.default_factory is not dataclasses.MISSING:
        return written(field.default_factory())
    return REQUIRED if field.default is dataclasses.MISSING else written(field.default)


def written(value: Any) -> str:
    """A value as one line of YAML."""
    value = value.value if isinstance(value, enum.Enum) else list(value) if isinstance(value, tuple) else value
    try:
        text = yaml.safe_dump(value, default_flow_style=True, width=float("inf"), sort_keys=False)
    except yaml.YAMLError:  # a fairseq object
        return str(value)
    return text.removesuffix("\n").removesuffix("\n...")


def type_name(hint: Any) -> str:
    """A type in YAML terms: `int`, `str or null`, `list of float`, `mapping`."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        names = [type_name(one) for one in inner if one is not types.NoneType]
        return " or ".join(names + ["null"] * (types.NoneType in inner))
    if origin is typing.Literal:
        return " or ".join(map(str, inner))
    if origin in (list, tuple, Sequence):
        return f"list of {type_name(inner[0])}"
    if origin is dict or dataclasses.is_dataclass(hint):
        return "mapping"
    if isinstance(hint, type) and issubclass(hint, enum.Enum):
        return " or ".join(str(member.value) for member in hint)
    return {Any: "any", dict: "mapping"}.get(hint) or str(getattr(hint, "__name__", hint))


def load(place: str) -> Any:
    """Import the object `module:name`."""
    module, _, name = place.partition(":")
    return getattr(importlib.import_module(module), name)
