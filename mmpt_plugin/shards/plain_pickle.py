"""Read pickles of plain containers, strings and numbers safely, without executing code in them."""

import pickle
from pathlib import Path
from typing import Any

SMALL = 2**26  # bytes


class Plain:
    """Rejects every class and function, without which a malicious pickle cannot run code."""

    def find_class(self, module: str, name: str) -> Any:
        """Raise UnpicklingError, because a plain pickle refers to no classes or functions."""
        raise pickle.UnpicklingError(f"it needs {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        """Raise UnpicklingError, because a plain pickle contains all of its objects."""
        raise pickle.UnpicklingError("it refers to external objects")


class FastUnpickler(Plain, pickle.Unpickler):
    """The one in C; a few bytes can make it allocate gigabytes for its memo."""


class SmallUnpickler(Plain, pickle._Unpickler):  # type: ignore[name-defined, misc]
    """The one in Python, whose memory is limited by the size of the file."""


def read_plain_pickle(path: Path) -> Any:
    """The content of a pickle; ValueError, naming the file, if it is damaged or contains more than plain values."""
    try:
        with path.open("rb") as file:
            return (SmallUnpickler if path.stat().st_size <= SMALL else FastUnpickler)(file).load()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    except Exception as error:  # a damaged pickle may raise any exception
        raise ValueError(f"{path} is not a pickle of plain containers, strings and numbers: {error}") from error
