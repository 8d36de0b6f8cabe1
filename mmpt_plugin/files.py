"""Files of any kind: atomic writes, names, lists and folders of them."""

import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int


def atomic_write(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a temporary file, then rename it: a reader sees the old file or the new one, never half of it.

    The file gets the permissions that the umask gives to new files, whatever `write` does: safetensors creates its
    files for their owner alone.
    """
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        beside.touch()
        permissions = beside.stat().st_mode
        write(beside)
        beside.chmod(permissions)
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)


def without_suffix(name: str) -> str:
    """A file's name without its suffix: `x` for `x.mp4`, and for `x.`, which `Path.stem` leaves as it is."""
    return os.path.splitext(name)[0]  # noqa: PTH122


def absolute(path: Path) -> Path:
    """Without `..`, which `Path.absolute` keeps; links stay as they are."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def files_below(folder: Path, *, skip: Path | None = None, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """The files of a folder and of all folders in it, by name.

    Hidden ones and the folder `skip` are passed over. Links to folders are followed, unless they lead back to a folder
    they lie in.
    """
    real = folder.resolve()
    if real in above or (above and skip is not None and real == skip.resolve()):
        return
    with os.scandir(folder) as entries:
        shown = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in shown:
        if entry.is_dir():
            yield from files_below(folder / entry.name, skip=skip, above=above | {real})
        else:
            yield folder / entry.name


def read_list(path: Path) -> list[str]:
    """The lines of a UTF-8 text file, with any line ends: without blank ones, and of equal ones the first."""
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: {error.reason} at byte {error.start}") from error
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def offsets(lengths: Sequence[int] | Int[np.ndarray, " N"]) -> Int[np.ndarray, " _"]:
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
