"""Pickle files that others made: read where they hold containers, strings and numbers, refused where more."""

import pickle
from pathlib import Path
from typing import Any, NoReturn


def read_plain_pickle(path: str | Path) -> Any:
    """The lists, dicts, strings and numbers in a file; whatever names a class or a function is a ValueError."""
    try:
        with Path(path).open("rb") as file:
            return PlainUnpickler(file).load()
    except (pickle.UnpicklingError, EOFError, OSError, ValueError, IndexError, KeyError, AttributeError) as error:
        raise ValueError(f"{path} is not read: {error}") from error


class PlainUnpickler(pickle.Unpickler):
    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"it names {module}.{name}, and only plain values are taken from a pickle")
