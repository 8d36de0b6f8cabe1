"""Registries of components by name, one per kind, with the same decorator signature as fairseq's.

Built-in components are imported on first use, so this module imports neither torch nor transformers.
"""

import importlib
import importlib.metadata
import logging
import sys
import typing
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from mmpt_plugin import moved, user_dir
from mmpt_plugin.errors import first_line, shortened, unknown_name
from mmpt_plugin.interpolations import check_interpolations

if TYPE_CHECKING:
    from mmpt_plugin.protocols import Corpus, Criterion, Dataset, Encoder, Model, Sampler, Store, Task

logger = logging.getLogger(__name__)

C = TypeVar("C", bound=type)
P = TypeVar("P")

ENTRY_POINT_GROUP = "mmpt_plugin.components"

BUILT_IN: dict[str, dict[str, str]] = {
    "model": {
        "videoclip": "models.videoclip",
        "videoclip_segmenter": "models.segmenter",
        "videoclip_step_localizer": "models.step_localizer",
        "clip_mean": "models.clip_mean",
        "clip_lstm": "models.clip_lstm",
        "clip_transformer": "models.clip_transformer",
        "clip2video": "models.clip2video",
        "videoclip_vit": "models.videoclip_vit",
    },
    "criterion": {
        "nce": "criterions.nce",
        "best_fit_nce": "criterions.candidates",
        "mil_nce": "criterions.candidates",
        "sigmoid": "criterions.sigmoid",
        "frame_cross_entropy": "criterions.frame_cross_entropy",
        "step_cross_entropy": "criterions.step_cross_entropy",
    },
    "task": {
        "video_text_pretraining": "tasks.pretraining",
        "finetuning": "tasks.finetuning",
        "text_video_retrieval": "tasks.retrieval",
        "multiple_choice_qa": "tasks.question_answering",
        "zero_shot_classification": "tasks.classification",
        "action_segmentation": "tasks.segmentation",
        "step_localization": "tasks.localization",
        "moment_localization": "tasks.moments",
    },
    "dataset": {
        "overlapped_clips": "datasets.overlapped_clips",
        "captioned_clips": "datasets.captioned_clips",
        "labelled_windows": "datasets.labelled_windows",
        "step_windows": "datasets.step_windows",
    },
    "corpus": {
        "activitynet": "corpora.activitynet",
        "coin": "corpora.coin",
        "crosstask": "corpora.crosstask",
        "didemo": "corpora.didemo",
        "didemo_moments": "corpora.didemo",
        "hmdb51": "corpora.labelled_videos",
        "jsonl": "corpora.jsonl",
        "kinetics": "corpora.labelled_videos",
        "labelled_csv": "corpora.labelled_videos",
        "lsmdc": "corpora.lsmdc",
        "msrvtt": "corpora.msrvtt",
        "msrvtt_multiple_choice": "corpora.msrvtt",
        "msvd": "corpora.msvd",
        "ucf101": "corpora.labelled_videos",
        "vatex": "corpora.vatex",
        "youcook2": "corpora.youcook2",
    },
    "sampler": {
        "uniform": "samplers.uniform",
        "retrieval_augmented": "samplers.retrieval_augmented",
    },
    "encoder": {
        "s3d": "features.s3d",
        "clip": "features.clip",
        "efficientnet_lite0": "features.efficientnet",
    },
    "store": {
        "lance": "search.stores.lance",
        "milvus": "search.stores.milvus",
    },
}
"""Kind -> name -> module of mmpt_plugin that registers the component. A test compares it with the decorators."""


@dataclass(frozen=True)
class Entry(Generic[P]):
    """A registered class and the dataclass that configures it."""

    kind: str
    name: str
    cls: Callable[..., P]
    config: type

    def build(self, config: Any = None, *args: Any, **kwargs: Any) -> P:
        """Build `cls(config, ...)`; `config` is an instance, a mapping of its fields, or None for the defaults."""
        if config is None:
            config = {}
        if not is_dataclass(config):
            config = self.parse(config)
        built = self.cls(config, *args, **kwargs)
        conformance().check_instance(self.kind, self.name, built)
        return built

    def parse(self, values: Mapping[str, Any]) -> Any:
        """Convert a mapping to the dataclass, ignoring `_name`; see `parse_config`."""
        return parse_config(self.config, {key: value for key, value in values.items() if key != "_name"}, self.name)


def parse_config(config_type: type, values: Mapping[str, Any], name: str) -> Any:
    """Convert a mapping to the dataclass `config_type`; ValueError, which starts with `name`, for a wrong key or value.

    Keys that are null are ignored, so that a YAML file can unset a key that it inherits. Old keys in the config's
    RENAMED are converted to their new names, with a warning; if the new name is in another section, such as
    model.normalize, the old key is a ValueError.
    """
    from omegaconf import OmegaConf  # 0.1 s, which `mmpt list` does not need
    from omegaconf.errors import OmegaConfBaseException

    values = with_new_names(config_type, {str(key): value for key, value in values.items() if value is not None}, name)
    known = [field.name for field in fields(config_type)]
    for key in values:
        if key not in known:
            raise ValueError(unknown_name("key", f"{name}.{key}", known, guess=key))
    check_interpolations(values, name)
    check_parts(config_type, values, name)
    try:
        return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(config_type), values))
    except OmegaConfBaseException as error:
        raise ValueError(f"{name}.{error.full_key}: {first_line(error)}") from error


def check_parts(config_type: type, values: Mapping[str, Any], name: str) -> None:
    """ValueError for a list or mapping where a field holds single values, as list[str] does: OmegaConf accepts them."""
    hints = typing.get_type_hints(config_type)
    for key, value in values.items():
        kinds = {typing.get_args(hint)[-1] for hint in (hints[key], *typing.get_args(hints[key])) if is_container(hint)}
        parts = value.values() if isinstance(value, Mapping) else value if isinstance(value, Sequence) else ()
        if kinds and kinds <= {str, int, float, bool}:
            for part in parts:
                if isinstance(part, Mapping | Sequence) and not isinstance(part, str):
                    raise ValueError(f"{name}.{key} must hold single values, got {shortened(value)}")


def is_container(hint: Any) -> bool:
    """Whether a type is a list or a mapping, such as list[str]."""
    return typing.get_origin(hint) in (list, dict)


def with_new_names(config_type: type, values: Mapping[str, Any], name: str) -> dict[str, Any]:
    """Rename the old keys in the config's RENAMED; ValueError for a key that moved to another section.

    If both names are given, the old one takes precedence: the user wrote it, and the new one may be inherited.
    """
    renamed = dict(values)
    for old, new in getattr(config_type, "RENAMED", {}).items():
        if old in renamed and "." in new:
            raise ValueError(f"{name}.{old} was removed: set {new} instead")
        if old in renamed:
            logger.warning("%s.%s is now %s.%s; the old name works for one version", name, old, name, new)
            renamed[new] = renamed.pop(old)
    return renamed


class Registry(Generic[P]):
    """The components of one kind, by name; P is the Protocol of their instances, see `mmpt_plugin.protocols`."""

    def __init__(self, kind: str, *, formerly: "Registry[Any] | None" = None) -> None:
        self.kind = kind
        self.formerly = formerly
        """Former registry of this kind; it is searched too, with a warning, for one version."""
        self._built_in = BUILT_IN.get(kind, {})
        self._entries: dict[str, Entry[P]] = {}
        self._subscribers: list[Callable[[Entry[P]], None]] = []

    def register(self, name: str, *, dataclass: type) -> Callable[[C], C]:
        """Return a class decorator: `@register_model("videoclip", dataclass=VideoCLIPConfig)`.

        The class is built as `cls(config)`. Registering another class with the same name is a ValueError; registering
        the same class again, when a module of a user directory is imported twice, is allowed. A class that does not
        follow the Protocol of its kind is a ValueError that names what is missing.
        """

        def decorate(cls: C) -> C:
            present = self._entries.get(name)
            module = self._built_in.get(name)
            if present is not None and origin(present.cls) != origin(cls):
                raise ValueError(f"{self.kind} '{name}' is already registered by {present.cls.__module__}")
            if module is not None and not cls.__module__.endswith(module):
                raise ValueError(f"{self.kind} '{name}' is already registered by mmpt_plugin.{module}")
            conformance().check_class(self.kind, name, cls, dataclass)
            if hasattr(cls, "registered_as"):
                cls.registered_as(name, dataclass)
            entry: Entry[P] = Entry(self.kind, name, cls, dataclass)
            for callback in self._subscribers:
                callback(entry)
            self._entries[name] = entry
            return cls

        return decorate

    def subscribe(self, callback: Callable[[Entry[P]], None]) -> None:
        """Call `callback` with every entry, now and for each one registered later.

        Entries include built-in components, and those of installed packages and of the user directory.
        """
        for name in self:
            self[name]
        for entry in self._entries.values():
            callback(entry)
        self._subscribers.append(callback)

    def __getitem__(self, name: str) -> Entry[P]:
        if name not in self._entries and name in self._built_in:
            importlib.import_module(f"mmpt_plugin.{self._built_in[name]}")
        if name not in self._entries:
            load_outside()
        if name not in self._entries and self.formerly is not None and name in self.formerly._entries:
            logger.warning(
                "'%s' is a %s: register it with register_%s; register_%s still works for one version",
                *(name, self.kind, self.kind, self.formerly.kind),
            )
            return self.formerly[name]
        if name not in self._entries:
            raise ValueError(unknown_name(self.kind, name, list(self)) + empty_user_dir())
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        """All names; built-in components are not imported."""
        load_outside()
        return iter(dict.fromkeys([*self._built_in, *self._entries]))

    def __contains__(self, name: object) -> bool:
        return name in list(self)

    def build(self, config: Any, *args: Any, **kwargs: Any) -> P:
        """Build the component of a YAML section, such as `{_name: nce, temperature: 0.07}`."""
        self.check_named(config)
        return self[config["_name"]].build(config, *args, **kwargs)

    def check_named(self, config: Any) -> None:
        """ValueError if a YAML section names no component."""
        if not isinstance(name := config.get("_name"), str):
            what = "no _name" if name is None else f"{shortened(name)} as _name"
            raise ValueError(f"the {self.kind} section has {what}. Possible: {sorted(self)}")


def origin(cls: Any) -> tuple[str, str]:
    """The file, or else the module, that defines a class, and its name there."""
    module = sys.modules.get(cls.__module__)
    return str(getattr(module, "__file__", None) or cls.__module__), str(cls.__qualname__)


def empty_user_dir() -> str:
    """The end of an error message: that the user directory registers nothing, if that is so."""
    folder = user_dir.current()
    if folder is None:
        return ""
    files = (Path(origin(entry.cls)[0]) for kind in REGISTRIES for entry in kind._entries.values())
    if any(file.is_relative_to(folder) for file in files):
        return ""
    return f". The user directory {folder} registers nothing: does its __init__.py import all of its modules?"


def conformance() -> Any:
    """The module that checks classes against the Protocols. It needs torch, so it is imported when it is used."""
    return importlib.import_module("mmpt_plugin.conformance")


def load_outside() -> None:
    """Import what registers components outside of this package: the user directory, then installed packages.

    So an author's folder takes precedence over an installed copy of it.
    """
    user_dir.load_current()
    load_entry_points()


@cache
def load_entry_points() -> None:
    """Import the installed packages that declare the entry point group; ImportError, with its name, if one fails."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            point.load()
        except Exception as error:
            raise ImportError(
                f"entry point '{point.name} = {point.value}' of group {ENTRY_POINT_GROUP} failed: {error}"
            ) from error


models: "Registry[Model]" = Registry("model")
criterions: "Registry[Criterion]" = Registry("criterion")
tasks: "Registry[Task]" = Registry("task")
datasets: "Registry[Dataset]" = Registry("dataset")
corpora: "Registry[Corpus]" = Registry("corpus", formerly=datasets)
samplers: "Registry[Sampler]" = Registry("sampler")
encoders: "Registry[Encoder]" = Registry("encoder")
stores: "Registry[Store]" = Registry("store")

REGISTRIES: tuple[Registry[Any], ...] = (models, criterions, tasks, datasets, corpora, samplers, encoders, stores)

SECTIONS: dict[str, Registry[Any]] = {"model": models, "criterion": criterions, "sampler": samplers}
"""Section of a project -> the registry of its component."""

register_model = models.register
register_criterion = criterions.register
register_task = tasks.register
register_dataset = datasets.register
register_corpus = corpora.register
register_sampler = samplers.register
register_encoder = encoders.register
register_store = stores.register


__getattr__ = moved.attributes(__name__)
