"""Components find their place by name: six registries with fairseq's decorator signature."""

import difflib
import importlib.metadata
import logging
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, fields, is_dataclass
from functools import cache
from typing import Any, TypeVar

from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

logger = logging.getLogger(__name__)

T = TypeVar("T", bound=type)

ENTRY_POINT_GROUP = "mmpt_plugin.components"


@dataclass(frozen=True)
class Entry:
    """One registered class and the dataclass that configures it."""

    name: str
    cls: type
    config: type

    def build(self, config: Any = None, *args: Any, **kwargs: Any) -> Any:
        """`cls(config, ...)`; `config` is an instance, a mapping of its fields, or None for the defaults."""
        if config is None:
            config = {}
        if not is_dataclass(config):
            config = self.parse(config)
        return self.cls(config, *args, **kwargs)

    def parse(self, values: Mapping[str, Any]) -> Any:
        """The typed config of a mapping; ValueError for an unknown, missing or mistyped key.

        `_name` is dropped, and so is a key that is null: a YAML that builds on another unsets it that way. A key that
        the config's RENAMED maps to a new name is read as that, with a warning; one that it maps to another section's
        key, such as model.normalize, is refused.
        """
        values = {str(key): value for key, value in values.items() if key != "_name" and value is not None}
        for old, new in getattr(self.config, "RENAMED", {}).items():
            if old in values and "." in new:
                raise ValueError(f"{self.name}.{old} is gone: {new} decides")
            if old in values:
                logger.warning("%s.%s is now %s.%s; the old name works for one version", self.name, old, self.name, new)
                values.setdefault(new, values.pop(old))
        known = [field.name for field in fields(self.config)]
        for key in values:
            if key not in known:
                raise ValueError(unknown("key", f"{self.name}.{key}", known, guess=key))
        try:
            return OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(self.config), values))
        except OmegaConfBaseException as error:
            raise ValueError(f"{self.name}.{error.full_key}: {str(error).splitlines()[0]}") from error


class Registry:
    """Name -> class, in the order of registration."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Entry] = {}
        self._subscribers: list[Callable[[Entry], None]] = []

    def register(self, name: str, *, dataclass: type) -> Callable[[T], T]:
        """Class decorator: `@register_model("videoclip", dataclass=VideoCLIPConfig)`.

        The class is built as `cls(config)`. Another class under the same name is a ValueError; the same class again
        (a module that is imported twice from a user directory) is not.
        """

        def decorate(cls: T) -> T:
            present = self._entries.get(name)
            if present is not None and present.cls.__qualname__ != cls.__qualname__:
                raise ValueError(f"{self.kind} '{name}' is already registered, by {present.cls.__module__}")
            entry = Entry(name, cls, dataclass)
            self._entries[name] = entry
            for callback in self._subscribers:
                callback(entry)
            return cls

        return decorate

    def subscribe(self, callback: Callable[[Entry], None]) -> None:
        """Call back with every entry there is, and with every one to come."""
        for entry in self._entries.values():
            callback(entry)
        self._subscribers.append(callback)

    def __getitem__(self, name: str) -> Entry:
        load_entry_points()
        if name not in self._entries:
            raise ValueError(unknown(self.kind, name, list(self._entries)))
        return self._entries[name]

    def __iter__(self) -> Iterator[str]:
        load_entry_points()
        return iter(self._entries)

    def build(self, config: Any, *args: Any, **kwargs: Any) -> Any:
        """Build what a YAML section names: `{_name: nce, temperature: 0.07}`."""
        if "_name" not in config:
            raise ValueError(f"the {self.kind} section has no _name. Registered: {sorted(self._entries)}")
        return self[config["_name"]].build(config, *args, **kwargs)


def unknown(kind: str, name: str, possible: list[str], *, guess: str | None = None) -> str:
    """`no model 'videoclp'. Did you mean 'videoclip'? Registered: [...]`."""
    close = difflib.get_close_matches(guess or name, possible, n=1)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"no {kind} '{name}'.{hint} Possible: {sorted(possible)}"


@cache
def load_entry_points() -> None:
    """Import the installed packages that announce components; one that fails raises, with its name."""
    for point in importlib.metadata.entry_points(group=ENTRY_POINT_GROUP):
        try:
            point.load()
        except Exception as error:
            raise ImportError(
                f"entry point '{point.name} = {point.value}' of group {ENTRY_POINT_GROUP} failed: {error}"
            ) from error


models = Registry("model")
criterions = Registry("criterion")
tasks = Registry("task")
datasets = Registry("dataset")
samplers = Registry("sampler")
encoders = Registry("encoder")

REGISTRIES = (models, criterions, tasks, datasets, samplers, encoders)

register_model = models.register
register_criterion = criterions.register
register_task = tasks.register
register_dataset = datasets.register
register_sampler = samplers.register
register_encoder = encoders.register
