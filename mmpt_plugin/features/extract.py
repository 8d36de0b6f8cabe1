"""Videos -> one feature row per second, one .npy file per video; resumable, in several processes."""

import json
from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8

from mmpt_plugin import registry
from mmpt_plugin.features.files import FeatureFolder, read_features, write_features
from mmpt_plugin.files import atomic_write, write_failures, writing
from mmpt_plugin.hardware import compute_device
from mmpt_plugin.protocols import Encoder
from mmpt_plugin.video.ahead import run_ahead
from mmpt_plugin.video.decode import read_seconds
from mmpt_plugin.video.hwaccel import check_hwaccel, on_own_gpu
from mmpt_plugin.video.origin import Origin, check_replaceable, is_equal, origin, read_origin
from mmpt_plugin.video.store import list_videos
from mmpt_plugin.video.workers import ExtractionFailed, ExtractReport, Times, advance, check_num_workers, work_through

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
    hwaccel: str | None = None,
) -> ExtractReport:
    """Write the features (T, D) of every video as float16 to `{video_id}.npy` in `out`.

    `videos` are files and folders, which `list_videos` maps to video ids. A video fails if it cannot be decoded, or if
    its output file holds the features of another video. Failures are counted and reported; they raise ExtractionFailed
    at the end unless allow_missing is set. Finished files are kept in any case. Processes are assigned to GPUs in turn.

    With max_seconds, only the first max_seconds seconds of each video are read. Existing features of more seconds are
    kept. `hwaccel` is the hardware that decodes, such as cuda (NVDEC); the features are the same.
    """
    check_num_workers(num_workers)
    if max_seconds is not None and max_seconds < 1:
        raise ValueError(f"max_seconds must be at least 1, got {max_seconds}")
    check_hwaccel(hwaccel)
    listed = list_videos(videos, out=out)
    build = partial(feature_work, dict(encoder), out, max_seconds, hwaccel)
    work = build()
    with writing(out, shared=True):
        return work_through(
            listed,
            work,
            build=build,
            is_finished=work.is_finished,
            keep=keep,
            num_workers=num_workers,
            allow_missing=allow_missing,
        )


def keep(report: ExtractReport, extracted: tuple[int, Times]) -> None:
    """Add the seconds of a video, and the times of its extraction, to the report."""
    seconds, times = extracted
    report.seconds += seconds
    report.times += times


def feature_work(encoder: dict[str, Any], out: Path, max_seconds: int | None, hwaccel: str | None) -> "FeatureWork":
    """Build the work from an encoder's config, in the process that runs it."""
    return FeatureWork(registry.encoders.build(encoder), out, max_seconds, hwaccel)


@dataclass(frozen=True)
class FeatureWork:
    """Write a video's features and a record of their source (`video.origin`); return the rows' number and the times."""

    encoder: Encoder
    out: Path
    max_seconds: int | None
    hwaccel: str | None = None

    def __call__(self, video_id: str, path: Path) -> tuple[int, Times]:
        made_from = self.origin(path)
        features, times = encode_timed(
            path,
            self.encoder,
            max_seconds=self.max_seconds,
            ahead=decodes_ahead(),
            hwaccel=on_own_gpu(self.hwaccel),
        )
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
        return len(features), times

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


def encode(path: Path, encoder: Encoder, *, max_seconds: int | None = None) -> Float[np.ndarray, "T D"]:
    """The features of a video, or of its first max_seconds seconds, after which decoding stops.

    Only a few seconds of frames are in memory at a time.
    """
    return encode_timed(path, encoder, max_seconds=max_seconds, ahead=decodes_ahead())[0]


def decodes_ahead() -> bool:
    """Whether a thread decodes while the encoder computes: only on a GPU, as both would compete for the CPU."""
    return compute_device().type != "cpu"


@torch.inference_mode()
def encode_timed(
    path: Path, encoder: Encoder, *, max_seconds: int | None, ahead: bool, hwaccel: str | None = None
) -> tuple[Float[np.ndarray, "T D"], Times]:
    """`encode`, and its times. With `ahead`, a thread decodes the next chunk meanwhile: up to 25 MB more."""
    start, rows, encoding = perf_counter(), [], 0.0
    decoded = Decoded(path, encoder, max_seconds, hwaccel)
    chunk_size = max(1, min(SECONDS_CHUNK, PIXELS_CHUNK // (encoder.fps * encoder.size**2)))
    with closing(run_ahead(iter(decoded), ahead=chunk_size) if ahead else iter(decoded)) as seconds:
        while waiting := list(islice(seconds, chunk_size)):
            begun = perf_counter()
            rows.append(encoder(torch.from_numpy(np.stack(waiting))).half().cpu().numpy())
            encoding += perf_counter() - begun
            advance(len(waiting))
    return np.concatenate(rows), Times(perf_counter() - start, decoded.time, encoding)


@dataclass
class Decoded:
    """The seconds of a video, as an encoder reads them."""

    path: Path
    encoder: Encoder
    max_seconds: int | None
    hwaccel: str | None = None
    time: float = 0.0
    """Seconds that decoding took so far."""

    def __iter__(self) -> Generator[UInt8[np.ndarray, "F H W 3"], None, None]:
        fps, size, scaling = self.encoder.fps, self.encoder.size, getattr(self.encoder, "scaling", "ffmpeg")
        begun = perf_counter()
        decoding = read_seconds(self.path, fps=fps, size=size, scaling=scaling, hwaccel=self.hwaccel)
        for second in islice(decoding, self.max_seconds):
            self.time += perf_counter() - begun
            yield second
            begun = perf_counter()
        self.time += perf_counter() - begun
