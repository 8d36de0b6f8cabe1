"""Pickles of nothing but containers, strings and numbers, read without running what else they may hold."""

import pickle
from pathlib import Path
from typing import Any


class PlainUnpickler(pickle.Unpickler):
    """Refuses every class and function, and with them all that a hostile pickle needs."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it asks for {module}.{name}")

    def persistent_load(self, pid: Any) -> Any:
        raise pickle.UnpicklingError("it refers to objects outside of it")


def read_plain_pickle(path: Path) -> Any:
    """What the pickle holds; ValueError, naming the file, where it is damaged or asks for more than plain values."""
    try:
        with path.open("rb") as file:
            return PlainUnpickler(file).load()
    except OSError as error:
        raise ValueError(f"{path} can't be read: {error.strerror}") from error
    except Exception as error:  # a damaged pickle raises whatever its bytes happen to ask for
        raise ValueError(f"{path} is not a pickle of plain containers, strings and numbers: {error}") from error
