"""Importing Meta's own fairseq 0.12.2, which was written for Python before 3.11."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def hashable_dataclasses(package: str) -> Iterator[None]:
    """Dataclasses that `package` defines meanwhile get a hash.

    fairseq's configuration has instances of its own dataclasses as defaults. Python 3.11 takes what has no hash for
    mutable, and refuses it as a default.
    """
    original: Any = dataclasses.dataclass

    def dataclass(cls: Any = None, /, **options: Any) -> Any:
        if cls is None:
            return lambda decorated: dataclass(decorated, **options)
        own = cls.__module__.split(".")[0] == package
        return original(cls, **options | ({"unsafe_hash": True} if own else {}))

    dataclasses.dataclass = dataclass
    try:
        yield
    finally:
        dataclasses.dataclass = original
