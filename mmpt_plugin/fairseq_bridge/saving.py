"""Write fairseq's checkpoints atomically."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fairseq import checkpoint_utils
from fairseq.file_io import PathManager

from mmpt_plugin.files import atomic_write


@contextmanager
def saves_atomically() -> Iterator[None]:
    """Context manager in which a checkpoint, and its copy, has its name only when it is complete and on disk.

    fairseq copies to checkpoint_last.pt in place. After an error of writing it tries again in the same file, behind
    what it has already written, and such a checkpoint can't be read.
    """
    original_save, original_copy = checkpoint_utils.torch_persistent_save, PathManager.copy

    def save(state: Any, filename: str, async_write: bool = False) -> None:
        if async_write or not PathManager.supports_rename(filename):
            original_save(state, filename, async_write=async_write)
            return
        atomic_write(Path(filename), partial(write, state))

    def copy(source: str, target: str, overwrite: bool = False) -> Any:
        if not PathManager.supports_rename(target):
            return original_copy(source, target, overwrite=overwrite)
        atomic_write(Path(target), partial(shutil.copyfile, source))
        return True

    checkpoint_utils.torch_persistent_save, PathManager.copy = save, staticmethod(copy)
    try:
        yield
    finally:
        checkpoint_utils.torch_persistent_save, PathManager.copy = original_save, staticmethod(original_copy)


def write(state: Any, path: Path) -> None:
    """Write a torch file through a file of Python, whose errors have a number."""
    with path.open("wb") as file:
        torch.save(state, file)
