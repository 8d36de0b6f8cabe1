"""Interpolations such as `${model.max_video_len}` in files that may be a stranger's: no secrets, and a limited size."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from mmpt_plugin.errors import shortened

CHARACTERS, DEPTH = 2**20, 50
INTERPOLATION, NAME = re.compile(r"\$\{([^${}]*)\}"), re.compile(r"[.\w\[\]-]+")


@contextmanager
def without_environment() -> Iterator[None]:
    """While this is active, `${oc.env:NAME}` is an error: a file must not read secrets into results and pages."""
    from omegaconf import OmegaConf
    from omegaconf.resolvers import oc

    def refused(*names: str) -> None:
        raise ValueError("files can't read environment variables: give key=$NAME on the command line")

    OmegaConf.register_new_resolver("oc.env", refused, replace=True)
    try:
        yield
    finally:
        OmegaConf.register_new_resolver("oc.env", oc.env, replace=True)


def check_interpolations(values: Any, where: str) -> None:
    """ValueError for values that are too large once their interpolations are resolved, which this does not do.

    `a: ${b}${b}`, `b: ${c}${c}` and so on double the text with every line.
    """
    if resolved_size(values, (), values, {}, where) > CHARACTERS:
        raise ValueError(f"{where}: its interpolations make more than {CHARACTERS} characters")


def resolved_size(
    value: Any, path: tuple[str, ...], whole: Any, known: dict[tuple[str, ...], int], where: str, depth: int = 0
) -> int:
    """The characters of the value at a path of the `whole`, once its interpolations are resolved.

    `known` has the sizes of the values that interpolations refer to.
    """
    if depth > DEPTH:
        raise ValueError(f"{where} is nested more than {DEPTH} deep")
    if isinstance(value, dict | list):
        parts = value.items() if isinstance(value, dict) else enumerate(value)
        return sum(resolved_size(part, (*path, str(key)), whole, known, where, depth + 1) for key, part in parts)
    if not isinstance(value, str):
        return 1
    inside = INTERPOLATION.findall(value)
    if value.count("${") > len(inside):
        raise ValueError(f"{where}: an interpolation within another one: {shortened(value)}")
    size = len(value)
    for name in NAME.findall(" ".join(inside)):  # also the arguments of a resolver
        up = len(name) - len(name.lstrip("."))
        target = (*(path[:-up] if up else ()), *name.strip(".").replace("]", "").replace("[", ".").split("."))
        if target not in known:
            known[target] = 0  # of a ring, which OmegaConf reports
            known[target] = resolved_size(value_at(target, whole), target, whole, known, where, depth + 1)
        size += known[target]
    return size


def value_at(path: tuple[str, ...], value: Any) -> Any:
    """The value at a path; None if there is none."""
    for part in path:
        if isinstance(value, list) and part.isdecimal() and int(part) < len(value):
            value = value[int(part)]
        else:
            value = value.get(part) if isinstance(value, dict) else None
    return value
