"""Videos -> one feature row per second, one .npy file per video; resumable, in several processes."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mmpt_plugin import registry
from mmpt_plugin.features.files import FeatureFolder, read_features, write_features
from mmpt_plugin.files import atomic_write, write_failures, writing
from mmpt_plugin.protocols import Encoder
from mmpt_plugin.video.decode import read_seconds
from mmpt_plugin.video.origin import Origin, check_replaceable, is_equal, origin, read_origin
from mmpt_plugin.video.store import list_videos
from mmpt_plugin.video.workers import ExtractionFailed, ExtractReport, advance, check_num_workers, work_through

__all__ = ["ExtractReport", "ExtractionFailed", "FeatureWork", "encode", "extract", "list_videos"]

SECONDS_CHUNK = 16  # maximum seconds encoded at a time
PIXELS_CHUNK = 2**23  # maximum pixels; S3D at full size: 5 s and 1.5 GB per process; 16 s would need 3 GB, no faster


def extract(
    videos: Sequence[Path],
    out: Path,
    *,
    encoder: Mapping[str, Any],
    num_workers: int = 1,
    allow_missing: bool = False,
    max_seconds: int | None = None,
) -> ExtractReport:
    """Write the features (T, D) of every video as float16 to `{video_id}.npy` in `out`.

    `videos` are files and folders, which `list_videos` maps to video ids. A video fails if it cannot be decoded, or if
    its output file holds the features of another video. Failures are counted and reported; they raise ExtractionFailed
    at the end unless allow_missing is set. Finished files are kept in any case. Processes are assigned to GPUs in turn.

    With max_seconds, only the first max_seconds seconds of each video are read. Existing features of more seconds are
    kept.
    """
    check_num_workers(num_workers)
    if max_seconds is not None and max_seconds < 1:
        raise ValueError(f"max_seconds must be at least 1, got {max_seconds}")
    listed = list_videos(videos, out=out)
    work = feature_work(dict(encoder), out, max_seconds)
    with writing(out, shared=True):
        return work_through(
            listed,
            work,
            build=partial(feature_work, dict(encoder), out, max_seconds),
            is_finished=work.is_finished,
            keep=int,
            num_workers=num_workers,
            allow_missing=allow_missing,
        )


def feature_work(encoder: dict[str, Any], out: Path, max_seconds: int | None) -> "FeatureWork":
    """Build the work from an encoder's config, in the process that runs it."""
    return FeatureWork(registry.encoders.build(encoder), out, max_seconds)


@dataclass(frozen=True)
class FeatureWork:
    """Write a video's features and a record of their source (`video.origin`); return the number of rows."""

    encoder: Encoder
    out: Path
    max_seconds: int | None

    def __call__(self, video_id: str, path: Path) -> int:
        made_from = self.origin(path)
        features = encode(path, self.encoder, max_seconds=self.max_seconds)
        if not np.isfinite(features).all():
            raise ValueError(f"{path}: its features hold NaN or infinity")
        target = FeatureFolder(self.out).path(video_id)
        about = target.with_suffix(".json")
        with write_failures(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            # In this order, a killed run leaves either no features or features with their record.
            if read_origin(about) != made_from:  # otherwise another process may already read the features
                target.unlink(missing_ok=True)
                atomic_write(about, lambda temporary: temporary.write_text(json.dumps(made_from), encoding="utf-8"))
            try:
                write_features(target, features)
            finally:
                if not target.exists():
                    about.unlink(missing_ok=True)
        return len(features)

    def is_finished(self, video_id: str, path: Path) -> bool:
        """Whether readable features of this file and encoder exist; ValueError if those of another video do."""
        target = FeatureFolder(self.out).path(video_id)
        about = target.with_suffix(".json")
        now, there = self.origin(path), read_origin(about)
        if not target.exists():
            if about.exists() and there is None:
                raise ValueError(f"{path}: {about} is not a record of features: choose another --out")
            return False
        check_replaceable(there, now, target)
        assert there is not None
        try:
            return is_equal(there, now) and serves(there, len(read_features(target)), self.max_seconds)
        except ValueError:
            return False

    def origin(self, path: Path) -> dict[str, Any]:
        """The record of the file, this encoder and `max_seconds` that is stored with the features."""
        return origin(path, self.encoder.fingerprint, max_seconds=self.max_seconds)


def serves(there: Origin, rows: int, max_seconds: int | None) -> bool:
    """Whether existing features cover the seconds requested. Features of the whole video always do."""
    read = there.get("max_seconds")
    return read is None or rows < read or (max_seconds is not None and max_seconds <= read)


@torch.inference_mode()
def encode(path: Path, encoder: Encoder, *, max_seconds: int | None = None) -> Float[np.ndarray, "T D"]:
    """The features of a video, or of its first max_seconds seconds, after which decoding stops.

    Only a few seconds of frames are in memory at a time.
    """
    rows = []
    chunk_size = max(1, min(SECONDS_CHUNK, PIXELS_CHUNK // (encoder.fps * encoder.size**2)))
    scaling = getattr(encoder, "scaling", "ffmpeg")
    seconds = islice(read_seconds(path, fps=encoder.fps, size=encoder.size, scaling=scaling), max_seconds)
    while waiting := list(islice(seconds, chunk_size)):
        rows.append(encoder(torch.from_numpy(np.stack(waiting))).half().cpu().numpy())
        advance(len(waiting))
    return np.concatenate(rows)
