"""Files by video: names, lists and folders of them, and features, one .npy a video. T seconds, D feature width."""

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mmpt_plugin.checkpoint import write_whole


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


def feature_file(folder: Path, video_id: str) -> Path:
    """Where a video's features are; an id may hold slashes. Of what they were made is in the .json next to them."""
    return folder / f"{video_id}.npy"


def write_features(path: Path, features: Float[np.ndarray, "T D"]) -> None:
    def save(beside: Path) -> None:
        with beside.open("wb") as file:
            np.save(file, features, allow_pickle=False)

    write_whole(path, save)


def read_features(path: Path) -> Float[np.ndarray, "T D"]:
    """One row a second, memory-mapped."""
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"features {path} can't be read: {error}") from error
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        raise ValueError(f"features {path} have shape {features.shape} of {features.dtype}, expected (T, D) of floats")
    return np.asarray(features)
