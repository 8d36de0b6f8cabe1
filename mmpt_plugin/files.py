"""File utilities: atomic writes, names, lists, and files in folders."""

import ctypes
import errno
import fcntl
import glob
import hashlib
import json
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TextIO

import numpy as np
from jaxtyping import Int

from mmpt_plugin.errors import HALF_PAIR, chain, first_line

EXCHANGE = 2  # RENAME_EXCHANGE of renameat2
AT_CWD = -100
NAME_BYTES, PATH_BYTES = 255, 4095  # of Linux


class WriteFailed(OSError):
    """A file or folder can't be written, for example because the disk is full; the message is one line."""

    def __str__(self) -> str:
        reason = self.strerror or "unknown error"
        return f"{self.filename} can't be written: {reason[0].lower()}{reason[1:]}"


def atomic_write(path: Path, write: Callable[[Path], Any]) -> None:
    """Write a temporary file, then rename it, so a reader sees either the old or the new file, never a partial one.

    This also holds after a power failure: the content is on disk before the file has its name. The file gets the
    default permissions of the umask. (safetensors creates files that only their owner can read.)
    """
    with temporary_folder(path) as folder:
        temporary = folder / path.name
        temporary.touch()
        permissions = temporary.stat().st_mode
        write(temporary)
        temporary.chmod(permissions)
        move_files(folder, path.parent)


def replace_file(path: Path, write: Callable[[Path], Any]) -> None:
    """`atomic_write`, after removing what killed processes have left next to the file.

    ValueError if another process writes the file.
    """
    with writing(path, replaced=True):
        atomic_write(path, write)


def replace_text(path: Path, text: str) -> None:
    """`replace_file` by a text in UTF-8; bytes of file names that are not UTF-8 are written as they are."""
    replace_file(path, lambda temporary: temporary.write_text(text, encoding="utf-8", errors="surrogateescape"))


def write_files(out: Path, write: Callable[[Path], Any]) -> None:
    """Write several files to a temporary folder in `out`; once all are complete, rename them, one after the other."""
    with temporary_folder(out / out.name, said=out) as folder:
        write(folder)
        move_files(folder, out)


def move_files(folder: Path, out: Path) -> None:
    """Move the files of a folder to another one, after their content is on disk."""
    made = sorted(folder.iterdir())
    for path in made:
        flush_to_disk(path)
    for path in made:
        path.replace(out / path.name)


@contextmanager
def temporary_folder(path: Path, *, said: Path | None = None) -> Iterator[Path]:
    """A hidden folder next to a path, for what will get its place; it is removed at the end.

    If the process is killed, it stays until `writing` finds it. What can't be written to it is a `WriteFailed` for the
    path, or for `said`.
    """
    with write_failures(said or path):
        folder = Path(tempfile.mkdtemp(prefix=prefix_of(path), suffix=".tmp", dir=path.parent))
    try:
        with write_failures(said or path, folder):
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def prefix_of(path: Path) -> str:
    """How the names of a path's temporary folders start."""
    return f".{path.name[:50]}."


@contextmanager
def write_failures(path: Path, folder: Path | None = None) -> Iterator[None]:
    """Errors of writing become a `WriteFailed` for `path`, except those that name files outside of `folder`."""
    try:
        yield
    except ValueError:
        raise
    except Exception as error:
        names = [str(name) for name in (getattr(error, "filename", None), getattr(error, "filename2", None)) if name]
        foreign = folder is not None and names and not any(name.startswith(str(folder)) for name in names)
        number = error_number(error)
        if foreign or number is None or (folder is None and isinstance(error, WriteFailed)):
            raise
        raise WriteFailed(number, os.strerror(number), str(path)) from error


def error_number(error: BaseException) -> int | None:
    """The number of the system's error that an exception is about, or that was raised before it; None without one.

    Libraries in Rust (safetensors, tokenizers) have it in their message; torch raises an error of its own after it.
    """
    for one in chain(error):
        if isinstance(one, OSError):
            return one.errno
        if number := re.search(r"\(os error (\d+)\)", str(one)):
            return int(number[1])
    return None


def flush_to_disk(path: Path) -> None:
    """Wait until the content of a file is on disk."""
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


def replace_folder(new: Path, out: Path) -> None:
    """Put the folder `new` in the place of `out`, whose content is removed.

    Both are exchanged at once. File systems that can't do that, such as NFS, have no folder `out` for a moment.
    """
    if not out.exists() or not any(out.iterdir()):
        new.rename(out)
        return
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.renameat2(AT_CWD, os.fsencode(new), AT_CWD, os.fsencode(out), EXCHANGE) == 0:
        shutil.rmtree(new, ignore_errors=True)
        return
    if (number := ctypes.get_errno()) not in (errno.EINVAL, errno.ENOSYS):
        raise OSError(number, os.strerror(number), str(new))
    with tempfile.TemporaryDirectory(prefix=prefix_of(out), suffix=".tmp", dir=out.parent) as old:
        out.rename(Path(old) / out.name)
        new.rename(out)


@contextmanager
def writing(out: Path, *, shared: bool = False, replaced: bool = False) -> Iterator[None]:
    """Keep other processes from writing an output, and first remove what killed ones have left there.

    ValueError if another process writes it; with `shared`, several processes may. `out` is a folder. It may be a file
    with `replaced`, which locks a file next to `out`, because `out` itself is replaced. On file systems without locks
    this does nothing.
    """
    lock = out.with_name(f".{out.name}.lock") if replaced else out / ".lock"
    with write_failures(out):
        lock.parent.mkdir(parents=True, exist_ok=True)
    while True:
        with write_failures(out):
            file = lock.open("a")
        with file:
            alone = take(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if alone is False and not shared:
                raise ValueError(f"another process writes to {out}: wait until it has ended, or choose another output")
            if shared:
                take(file, fcntl.LOCK_SH)
            if not is_file_of(file, lock):
                continue  # the process that had it has just removed it
            if alone:
                remove_leftovers(out, replaced=replaced)
            try:
                yield
            finally:
                if not shared or take(file, fcntl.LOCK_EX | fcntl.LOCK_NB):
                    with suppress(OSError):
                        lock.unlink()
        return


def take(file: IO[str], kind: int) -> bool | None:
    """Whether a lock of this kind was free; None if the file system has no locks."""
    try:
        fcntl.flock(file, kind)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True


def is_file_of(file: IO[str], path: Path) -> bool:
    """Whether an open file still has this path."""
    try:
        return os.path.samestat(os.fstat(file.fileno()), path.stat())
    except FileNotFoundError:
        return False


def remove_leftovers(out: Path, *, replaced: bool = False) -> None:
    """Remove the temporary folders of killed processes in a folder, or next to an output that is `replaced`."""
    found = out.parent.glob(f"{glob.escape(prefix_of(out))}*.tmp") if replaced else out.rglob(".*.tmp")
    for path in list(found):
        shutil.rmtree(path, ignore_errors=True)


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

    Links are followed, whose targets the owner of the folder has chosen. A name that is too long for a file system is a
    ValueError too.
    """
    path, parts = folder / name, Path(name).parts
    if Path(name).is_absolute() or ".." in parts:
        raise ValueError(f"'{name}' leads out of {folder}")
    try:
        if len(os.fsencode(path)) > PATH_BYTES or any(len(os.fsencode(part)) > NAME_BYTES for part in parts):
            raise ValueError(f"'{name[:50]}...' is too long for the name of a file")
    except UnicodeEncodeError:
        raise ValueError(f"'{name}' can't be the name of a file: it has {HALF_PAIR}") from None
    return path


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
    """The content of a JSON file, which may contain names of files that are not in UTF-8; see `parse_json`."""
    return parse_json(read_text(path), str(path), names_of_files=True)


def parse_json(text: str, where: str, *, object_pairs_hook: Any = None, names_of_files: bool = False) -> Any:
    """The value of a JSON text; ValueError, naming the location `where`, if it is not valid.

    Values that are nested too deep, integers of more than 300 digits, and halves of surrogate pairs are not valid
    either; `names_of_files` allows the halves with which Python represents bytes that are not UTF-8.
    """
    try:
        value = json.loads(text, parse_int=integer, object_pairs_hook=object_pairs_hook)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode(errors="surrogateescape" if names_of_files else "strict")
        return value
    except UnicodeEncodeError:
        raise ValueError(f"{where}: not valid JSON: it has {HALF_PAIR}") from None
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
