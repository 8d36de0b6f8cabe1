"""User directories: folders, or single files, of Python that register components of their own.

The environment variable MMPT_USER_DIR names the current one. It is set by `load`, so that all processes that this one
starts (ranks, loader workers, extraction workers, jobs) have the same components.
"""

import importlib
import os
import sys
import traceback
from functools import cache
from pathlib import Path

VARIABLE = "MMPT_USER_DIR"
PACKAGE = Path(__file__).parent


def load(path: str | Path) -> None:
    """Import a user directory: a folder with `__init__.py`, or a .py file. Repeated calls have no effect.

    The folder that it is in becomes the first of `sys.path`, as with fairseq's `--user-dir`. An error in its code, or a
    module of the same name, is a ValueError that names the place.
    """
    absolute = Path(path).expanduser().resolve()
    import_once(absolute)
    if absolute != PACKAGE:
        os.environ[VARIABLE] = str(absolute)


def current() -> Path | None:
    """The user directory of this process, or None."""
    return Path(os.environ[VARIABLE]).expanduser().resolve() if os.environ.get(VARIABLE) else None


def load_current() -> None:
    """Import the user directory of this process, if there is one."""
    if os.environ.get(VARIABLE):
        load(os.environ[VARIABLE])


@cache
def import_once(path: Path) -> None:
    """Import a user directory by its absolute path; see `load`."""
    if path == PACKAGE:
        return
    name, file = (path.stem, path) if path.suffix == ".py" else (path.name, path / "__init__.py")
    if not file.is_file():
        raise ValueError(f"no user directory {path}: expected a folder that contains __init__.py, or a .py file")
    if not name.isidentifier():
        raise ValueError(f"user directory {path}: '{name}' is not a name that Python can import, rename it")
    if name in sys.modules:
        check_same(sys.modules[name], file)
        return
    sys.path.insert(0, str(path.parent))
    try:
        check_same(importlib.import_module(name), file)
    except Exception as error:
        sys.modules.pop(name, None)
        raise ValueError(f"user directory {path}: {problem(error, path)}") from error


def check_same(module: object, file: Path) -> None:
    """ValueError if a module is not the one in this file."""
    found = getattr(module, "__file__", None)
    if found is None or Path(found).resolve() != file:
        raise ValueError(f"{file} can't be imported, because {found or 'a module of Python'} has its name: rename it")


def problem(error: Exception, path: Path) -> str:
    """An error and the last line of the user directory's code that led to it."""
    folder = path if path.is_dir() else path.parent
    frames = [
        frame for frame in traceback.extract_tb(error.__traceback__) if Path(frame.filename).is_relative_to(folder)
    ]
    text = str(error) if isinstance(error, ValueError) else f"{type(error).__name__}: {error}"
    if isinstance(error, SyntaxError):
        return text
    return f"{text} ({frames[-1].filename}:{frames[-1].lineno})" if frames else text
