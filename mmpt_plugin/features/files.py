"""Feature files, one .npy per video. T seconds, D feature width."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mmpt_plugin.files import atomic_write, files_below, without_suffix


@dataclass(frozen=True)
class FeatureFolder:
    """A folder of `{video_id}.npy`: the one place that turns a video's id into its feature file.

    An id may contain slashes; its file is then in a subfolder. The .json next to a file says what it was made from.
    """

    folder: Path

    def path(self, video_id: str) -> Path:
        """Where a video's features are, or will be."""
        return self.folder / f"{video_id}.npy"

    def find(self, names: Sequence[str]) -> Path:
        """The first file there is for a video that goes by several names, each with or without its suffix."""
        possible = [self.path(name) for name in names]
        possible += [self.path(without_suffix(name)) for name in names if "." in name]
        return next((path for path in possible if path.is_file()), possible[0])

    def ids(self) -> list[str]:
        """The videos with features, sorted."""
        files = (path.relative_to(self.folder) for path in files_below(self.folder) if path.suffix == ".npy")
        return sorted(path.as_posix().removesuffix(".npy") for path in files)

    def __contains__(self, video_id: str) -> bool:
        return self.path(video_id).is_file()

    def read(self, video_id: str) -> Float[np.ndarray, "T D"]:
        """See `read_features`."""
        return read_features(self.path(video_id))

    def encoder(self, video_id: str) -> str:
        """The fingerprint of the encoder that made the features; 'unknown' for features from elsewhere."""
        about = self.path(video_id).with_suffix(".json")
        if not about.is_file():
            return "unknown"
        try:
            record = json.loads(about.read_text(encoding="utf-8"))
            seconds = record.get("max_seconds")
            return str(record["encoder"]) if seconds is None else f"{record['encoder']}, first {seconds} seconds"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{about} is damaged: {error!r}") from error


def write_features(path: Path, features: Float[np.ndarray, "T D"]) -> None:
    """A .npy file, whole or not at all."""

    def save(beside: Path) -> None:
        with beside.open("wb") as file:
            np.save(file, features, allow_pickle=False)

    atomic_write(path, save)


def read_features(path: Path) -> Float[np.ndarray, "T D"]:
    """One row per second, memory-mapped; ValueError, naming the file, for anything else."""
    try:
        features = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise ValueError(f"features {path} can't be read: {error}") from error
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        raise ValueError(f"features {path} have shape {features.shape} of {features.dtype}, expected (T, D) of floats")
    return np.asarray(features)
