"""Features, one .npy a video. T seconds, D feature width."""

from pathlib import Path

import numpy as np
from jaxtyping import Float

from mmpt_plugin.files import atomic_write


def feature_file(folder: Path, video_id: str) -> Path:
    """Where a video's features are; an id may hold slashes. Of what they were made is in the .json next to them."""
    return folder / f"{video_id}.npy"


def write_features(path: Path, features: Float[np.ndarray, "T D"]) -> None:
    def save(beside: Path) -> None:
        with beside.open("wb") as file:
            np.save(file, features, allow_pickle=False)

    atomic_write(path, save)


def read_features(path: Path) -> Float[np.ndarray, "T D"]:
    """One row a second, memory-mapped."""
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"features {path} can't be read: {error}") from error
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        raise ValueError(f"features {path} have shape {features.shape} of {features.dtype}, expected (T, D) of floats")
    return np.asarray(features)
