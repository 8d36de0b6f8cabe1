"""Feature files: one .npy a video. T seconds, D feature width."""

import os.path
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mmpt_plugin.checkpoint import write_whole


def without_suffix(name: str) -> str:
    """A file's name without its suffix: `x` for `x.mp4`, and for `x.`, which `Path.stem` leaves as it is."""
    return os.path.splitext(name)[0]  # noqa: PTH122


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
