"""Feature files, one .npy file per video.

T seconds, D feature width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float

from mmpt_plugin import moved
from mmpt_plugin.files import atomic_write, files_below, inside, read_array, read_json, without_suffix


@dataclass(frozen=True)
class FeatureFolder:
    """A folder of `{video_id}.npy`; all code that maps video ids to feature files uses this class.

    An id may contain slashes, for files in subfolders. The .json file next to a feature file records its origin.
    """

    folder: Path

    def path(self, video_id: str) -> Path:
        """The path of a video's features, which need not exist; ValueError for an id that leads out of the folder."""
        return inside(self.folder, f"{video_id}.npy")

    def find(self, names: Sequence[str]) -> Path:
        """The first existing file of a video with several names, each tried with and then without its suffix.

        If there is none, the path of the first name.
        """
        possible = [self.path(name) for name in names]
        possible += [self.path(without_suffix(name)) for name in names if "." in name]
        return next((path for path in possible if path.is_file()), possible[0])

    def ids(self) -> list[str]:
        """The ids of the videos with features, sorted."""
        files = (path.relative_to(self.folder) for path in files_below(self.folder) if path.suffix == ".npy")
        return sorted(path.as_posix().removesuffix(".npy") for path in files)

    def __contains__(self, video_id: str) -> bool:
        return self.path(video_id).is_file()

    def read(self, video_id: str) -> Float[np.ndarray, "T D"]:
        """See `read_features`."""
        return read_features(self.path(video_id))

    def encoder(self, video_id: str) -> str:
        """The fingerprint of the encoder that made the features; 'unknown' if the .json file is missing.

        It includes the number of seconds for truncated videos. A damaged .json file is a ValueError.
        """
        about = self.path(video_id).with_suffix(".json")
        if not about.is_file():
            return "unknown"
        try:
            record = read_json(about)
            seconds = record.get("max_seconds")
            return str(record["encoder"]) if seconds is None else f"{record['encoder']}, first {seconds} seconds"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{about} is damaged: {error!r}") from error


def write_features(path: Path, features: Float[np.ndarray, "T D"]) -> None:
    """Write a .npy file atomically."""

    def save(temporary: Path) -> None:
        with temporary.open("wb") as file:
            np.save(file, features, allow_pickle=False)

    atomic_write(path, save)


def read_features(path: Path) -> Float[np.ndarray, "T D"]:
    """Memory-map the features of a video, one row per second; ValueError, with the path, for any other content."""
    try:
        features = read_array(path)
    except ValueError as error:
        raise ValueError(f"features {error}") from error
    if features.ndim != 2 or not np.issubdtype(features.dtype, np.floating):
        raise ValueError(f"features {path} have shape {features.shape} of {features.dtype}, expected (T, D) of floats")
    return np.asarray(features)


__getattr__ = moved.attributes(__name__)
