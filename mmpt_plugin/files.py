"""File utilities: atomic writes, names, lists, and files in folders."""

import fcntl
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import numpy as np
from jaxtyping import Int

from mmpt_plugin.errors import first_line


def atomic_write(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a temporary file, then rename it, so a reader sees either the old or the new file, never a partial one.

    The file gets the default permissions of the umask. (safetensors creates files that only their owner can read.)
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.touch()
        permissions = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(permissions)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, kind: int = fcntl.LOCK_EX) -> Iterator[bool]:
    """Hold a lock of this kind on a file, which is created; False, at once, if `LOCK_NB` finds it taken."""
    with path.open("a") as file:
        try:
            fcntl.flock(file, kind)
        except BlockingIOError:
            yield False
            return
        yield True


def file_sha256(path: Path) -> str:
    """SHA-256 of a file's content, as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def without_suffix(name: str) -> str:
    """A file name without its suffix: `x` for `x.mp4`, and also for `x.`, which `Path.stem` does not change."""
    return os.path.splitext(name)[0]  # noqa: PTH122


def absolute(path: Path) -> Path:
    """The absolute path without `..`, which `Path.absolute` keeps; links are not resolved."""
    return Path(os.path.abspath(path))  # noqa: PTH100


def files_below(folder: Path, *, skip: Path | None = None, above: frozenset[Path] = frozenset()) -> Iterator[Path]:
    """The files in a folder and its subfolders, sorted by name.

    Hidden files and folders, and the folder `skip`, are skipped. Links to folders are followed, unless they lead to a
    parent folder.
    """
    real = folder.resolve()
    if real in above or (above and skip is not None and real == skip.resolve()):
        return
    with os.scandir(folder) as entries:
        shown = sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    for entry in shown:
        if is_folder(entry):
            yield from files_below(folder / entry.name, skip=skip, above=above | {real})
        else:
            yield folder / entry.name


def read_list(path: Path) -> list[str]:
    """The lines of a UTF-8 text file with any line ends, without blank lines and duplicates."""
    lines = read_text(path).split("\n")
    return list(dict.fromkeys(line.strip() for line in lines if line.strip()))


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether an entry is a folder or a link to one; False for a link that leads to itself."""
    try:
        return entry.is_dir()
    except OSError:
        return False


def inside(folder: Path, name: str) -> Path:
    """`folder / name`; ValueError if this is not below the folder: a foreign file must not name others of this machine.

    Links are followed, whose targets the owner of the folder has chosen.
    """
    if Path(name).is_absolute() or ".." in Path(name).parts:
        raise ValueError(f"'{name}' leads out of {folder}")
    return folder / name


def read_array(path: Path) -> np.ndarray:
    """Memory-map a .npy file; ValueError, naming the file, for any other. Pickled objects in it are not read."""
    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except Exception as error:  # NumPy parses headers as Python literals, which may raise almost anything
        raise ValueError(f"{path} can't be read: {first_line(error)}") from error
    if not isinstance(array, np.ndarray):
        raise ValueError(f"{path} can't be read: it is an archive of arrays")
    return array


@contextmanager
def open_text(path: Path) -> Iterator[TextIO]:
    """A UTF-8 text file, for reading; ValueError, naming it, where it is not in UTF-8."""
    with path.open(encoding="utf-8-sig") as file:
        try:
            yield file
        except UnicodeDecodeError as error:
            raise ValueError(f"{path} is not in UTF-8: {error.reason}") from error


def read_text(path: Path) -> str:
    """The text of a UTF-8 file, without a byte order mark; ValueError, naming the file, for any other."""
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not in UTF-8: {error.reason} at byte {error.start}") from error


def read_json(path: Path) -> Any:
    """The content of a JSON file; see `parse_json`."""
    return parse_json(read_text(path), str(path))


def parse_json(text: str, where: str, *, object_pairs_hook: Any = None) -> Any:
    """The value of a JSON text; ValueError, naming the location `where`, if it is not valid.

    Values that are nested too deep, and integers of more than 300 digits, are not valid either.
    """
    try:
        value = json.loads(text, parse_int=integer, object_pairs_hook=object_pairs_hook)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape")  # also of a name that is not UTF-8
        return value
    except UnicodeEncodeError:
        raise ValueError(f"{where}: not valid JSON: it has half of a surrogate pair") from None
    except RecursionError:
        raise ValueError(f"{where}: not valid JSON: it is nested too deep") from None
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON: {error}") from error
    except ValueError as error:  # of `integer` or the hook
        raise ValueError(f"{where}: {error}") from error


def integer(digits: str) -> int:
    """The number of an integer in JSON; ValueError unless it can be converted to a float."""
    if len(digits) > 300:
        raise ValueError(f"an integer of {len(digits)} digits is too large")
    return int(digits)


def offsets(lengths: Sequence[int] | Int[np.ndarray, " N"]) -> Int[np.ndarray, " _"]:
    """Where each of N consecutive items starts, and where the last one ends: N + 1 numbers, the first is 0."""
    return np.concatenate([[0], np.cumsum(lengths, dtype=np.int64)])
