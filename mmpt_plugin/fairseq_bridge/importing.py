"""Import Meta's fairseq 0.12.2, which does not support Python 3.11, on Python 3.11 and later."""

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def hashable_dataclasses(package: str) -> Iterator[None]:
    """Context manager in which dataclasses defined by `package` get a hash.

    fairseq's configuration uses instances of its own dataclasses as defaults. Python 3.11 treats an object without a
    hash as mutable and rejects it as a default.
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
