"""Checks of components against the Protocol of their kind: of classes when they register, of instances when built.

A class is checked for methods and their arguments. Attributes that `__init__` may set are checked on the instance.
"""

import inspect
import logging
from collections.abc import Callable, Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from torch import nn

from mmpt_plugin import protocols

logger = logging.getLogger(__name__)

PROTOCOLS: dict[str, tuple[type, ...]] = {
    "model": (protocols.Model,),
    "criterion": (protocols.Criterion,),
    "task": (protocols.TrainingTask, protocols.BenchmarkTask),
    "dataset": (protocols.Dataset,),
    "corpus": (protocols.Corpus,),
    "sampler": (protocols.Sampler,),
    "encoder": (protocols.Encoder,),
    "store": (protocols.Store,),
}
"""Kind -> its Protocols, of which a class must follow one."""

BUILT_WITH: dict[str, Callable[..., None]] = {
    "dataset": lambda config, split: None,
    "sampler": lambda config, *, num_videos, seed: None,
}
"""Kind -> the arguments that its classes are built with, if there are more than `config`."""


def check_class(kind: str, name: str, cls: Any, config: Any) -> None:
    """ValueError, of one line, for a class or its config that does not follow the Protocol of its kind."""
    kind = "corpus" if kind == "dataset" and follows(protocols.Corpus, cls) else kind  # allowed for one version
    if kind not in PROTOCOLS:
        return
    where = f"{kind} '{name}' ({cls.__module__}.{cls.__qualname__})"
    if not (isinstance(config, type) and is_dataclass(config)):
        raise ValueError(f"{where}: its config must be a dataclass, got {config!r}")
    missing = [f"{method}()" for method in abstract_methods(cls)]
    missing += [f"{config.__name__}.{field}" for field in lacking_fields(cls, config)]
    if not any(follows(protocol, cls) for protocol in PROTOCOLS[kind]):
        missing += [" or ".join(", ".join(lacking_methods(protocol, cls)) for protocol in PROTOCOLS[kind])]
    if missing:
        raise ValueError(f"{where} lacks {', '.join(missing)}{advice(kind, cls)}")
    if wrong := wrong_arguments(cls, BUILT_WITH.get(kind, lambda config: None)):
        raise ValueError(f"{where} is built as {cls.__name__}{wrong}, which its __init__ does not accept")
    if kind == "model" and not hasattr(cls, "from_pretrained"):
        logger.warning("%s can only be trained: derive it from PretrainedEmbedder to evaluate or search with it", where)


def follows(protocol: type, cls: type) -> bool:
    """Whether a class has the methods of a Protocol."""
    return not any(lacking_methods(protocol, cls))


def check_instance(kind: str, name: str, instance: Any) -> None:
    """ValueError for an instance without an attribute of its Protocol."""
    kind = "corpus" if kind == "dataset" and follows(protocols.Corpus, type(instance)) else kind
    expected = [attribute for protocol in PROTOCOLS.get(kind, ())[:1] for attribute in attributes_of(protocol)]
    if missing := [attribute for attribute in expected if not has(instance, attribute)]:
        raise ValueError(f"{kind} '{name}' ({type(instance).__qualname__}) lacks the attribute {', '.join(missing)}")


def lacking_methods(protocol: type, cls: type) -> Iterator[str]:
    """The methods of a Protocol that a class lacks, or that do not accept the arguments that they are called with."""
    for name, expected in methods_of(protocol):
        method = "forward" if name == "__call__" and issubclass(cls, nn.Module) else name
        found = next((vars(base)[method] for base in cls.__mro__ if method in vars(base)), None)
        call = f"{method}{call_of(expected)}"
        if found is None or found is nn.Module.forward:
            yield call
        elif inspect.isfunction(found) and wrong_arguments(found, expected, skip_self=True):
            yield f"{call} (it has {method}{inspect.signature(found)})"


def methods_of(protocol: type) -> Iterator[tuple[str, Callable[..., Any]]]:
    """The methods that a Protocol itself defines."""
    for name, value in vars(protocol).items():
        if inspect.isfunction(value) and (not name.startswith("_") or name in ("__call__", "__len__", "__getitem__")):
            yield name, value


def attributes_of(protocol: type) -> list[str]:
    """The attributes and properties of a Protocol."""
    properties = [name for name, value in vars(protocol).items() if isinstance(value, property)]
    return [*vars(protocol).get("__annotations__", {}), *properties]


def has(instance: Any, attribute: str) -> bool:
    """Whether an instance has an attribute, without computing a property."""
    return hasattr(type(instance), attribute) or hasattr(instance, attribute)


def abstract_methods(cls: Any) -> Iterator[str]:
    """The methods that a base class leaves to its subclasses, unless the class overrides their alternative."""
    alternatives = getattr(cls, "alternatives", {})
    for name in dir(cls):
        if getattr(inspect.getattr_static(cls, name), "__isabstractmethod__", False):
            owner = next(base for base in cls.__mro__ if name in vars(base))
            other = alternatives.get(name, name)
            if getattr(cls, other) is getattr(owner, other):
                yield name


def lacking_fields(cls: Any, config: Any) -> Iterator[str]:
    """The settings that a class requires of its config."""
    alternatives = getattr(cls, "alternatives", {})
    for name in getattr(cls, "config_fields", ()):
        if not any(has_field(config, each) for each in (name, alternatives.get(name, name))):
            yield name


def has_field(config: Any, name: str) -> bool:
    """Whether a dataclass has a field or a property."""
    return name in {field.name for field in fields(config)} or hasattr(config, name)


def call_of(expected: Callable[..., Any]) -> str:
    """The arguments of a method as they are passed: `(dataset, *, split, seed)`."""
    parameters = list(inspect.signature(expected).parameters.values())
    own = [
        parameter.replace(annotation=inspect.Parameter.empty) for parameter in parameters if parameter.name != "self"
    ]
    return str(inspect.Signature(own))


def wrong_arguments(function: Any, expected: Callable[..., Any], *, skip_self: bool = False) -> str:
    """The arguments that are passed, as text, if a function does not accept them; otherwise empty."""
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # written in C
        return ""
    parameters = [p for p in inspect.signature(expected).parameters.values() if p.name != "self"]
    if any(p.kind is inspect.Parameter.VAR_POSITIONAL for p in parameters):
        return ""
    passed = [p for p in parameters if p.default is inspect.Parameter.empty]
    keyword = {p.name: None for p in passed if p.kind is inspect.Parameter.KEYWORD_ONLY}
    try:
        signature.bind(*[None] * (skip_self + len(passed) - len(keyword)), **keyword)
    except TypeError:
        return call_of(expected)
    return ""


def advice(kind: str, cls: type) -> str:
    """What helps, at the end of an error message."""
    if any(base.__module__.startswith("mmpt_plugin.") for base in cls.__mro__):
        return ""
    bases = {"model": "PretrainedEmbedder", "criterion": "Criterion", "task": "Benchmark", "corpus": "Corpus"}
    more = f"; the base class {bases[kind]} has most of it" if kind in bases else ""
    return f" (see mmpt_plugin.protocols{more})"
