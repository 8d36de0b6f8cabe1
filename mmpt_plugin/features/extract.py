"""Videos -> one feature row a second, an .npy file a video; resumable, by several processes."""

import json
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from mmpt_plugin import registry
from mmpt_plugin.checkpoint import write_whole
from mmpt_plugin.features.encoder import Encoder
from mmpt_plugin.features.video import SUFFIXES, read_seconds

SECONDS_AT_ONCE = 16


@dataclass
class ExtractReport:
    done: int = 0
    skipped: int = 0
    """Finished before, from the same file by the same encoder."""
    seconds: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Video file -> why it has no features."""

    def __str__(self) -> str:
        line = f"{self.done} videos extracted ({self.seconds} s), {self.skipped} were there, {len(self.failed)} failed"
        return "\n".join([line, *(f"failed: {reason}" for reason in self.failed.values())])


def extract(
    videos: Sequence[Path],
    out: Path,
    *,
    encoder: Mapping[str, Any],
    num_workers: int = 1,
    allow_missing: bool = False,
) -> ExtractReport:
    """`out/{stem}.npy` (T, D) float16 for every video; `videos` are files, or one folder of them.

    A video that can't be decoded is named and counted; unless allow_missing, a ValueError at the end says so.
    Files that are finished stay in any case.
    """
    files = list_videos(videos)
    registry.encoders[encoder["_name"]].parse(dict(encoder))
    out.mkdir(parents=True, exist_ok=True)
    report = ExtractReport()
    with progress_bar() as progress:
        bar = progress.add_task("extracting", total=len(files))
        for path, seconds, reason in run(files, out, dict(encoder), num_workers):
            if reason is not None:
                report.failed[str(path)] = reason
            elif seconds is None:
                report.skipped += 1
            else:
                report.done += 1
                report.seconds += seconds
            progress.advance(bar)
    if report.failed and not allow_missing:
        raise ValueError(f"{len(report.failed)} of {len(files)} videos failed: {'; '.join(report.failed.values())}")
    return report


def list_videos(videos: Sequence[Path]) -> list[Path]:
    """The files, or a folder's video files; two of one stem would get one feature file, which is an error."""
    folder = videos[0] if len(videos) == 1 and videos[0].is_dir() else None
    files = sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES) if folder else list(videos)
    if not files:
        raise ValueError(f"no videos{f' in {folder}' if folder else ''}: suffixes are {', '.join(SUFFIXES)}")
    stems: dict[str, Path] = {}
    for path in files:
        if path.stem in stems:
            raise ValueError(f"{stems[path.stem]} and {path} would both become {path.stem}.npy")
        stems[path.stem] = path
    return files


Result = tuple[Path, int | None, str | None]  # file, seconds or None where skipped, reason or None where well


def run(files: Sequence[Path], out: Path, encoder: dict[str, Any], num_workers: int) -> Iterator[Result]:
    if num_workers <= 1:
        start_worker(encoder, torch.get_num_threads())
        for path in files:
            yield extract_one(path, out)
        return
    threads = max(1, (os.cpu_count() or 1) // num_workers)
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(num_workers, context, initializer=start_worker, initargs=(encoder, threads)) as pool:
        for future in as_completed([pool.submit(extract_one, path, out) for path in files]):
            yield future.result()


_encoder: Encoder | None = None


def start_worker(encoder: dict[str, Any], threads: int) -> None:
    """Each process builds the encoder once."""
    global _encoder
    torch.set_num_threads(threads)
    _encoder = registry.encoders.build(encoder)


def extract_one(path: Path, out: Path) -> Result:
    assert _encoder is not None
    target, about = out / f"{path.stem}.npy", out / f"{path.stem}.json"
    try:
        stat = path.stat()
        made_from = {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "encoder": _encoder.fingerprint}
        if target.is_file() and about.is_file() and json.loads(about.read_text()) == made_from:
            return path, None, None
        features = encode(path, _encoder)
        if not np.isfinite(features).all():
            return path, None, f"{path}: its features hold NaN or infinity"
        about.unlink(missing_ok=True)
        write_features(target, features)
        write_whole(about, lambda beside: beside.write_text(json.dumps(made_from)))
    except (ValueError, OSError) as error:
        return path, None, str(error)
    return path, len(features), None


@torch.inference_mode()
def encode(path: Path, encoder: Encoder) -> Float[np.ndarray, "T D"]:
    """A few seconds of frames are in memory at a time."""
    rows, waiting = [], []
    for second in read_seconds(path, fps=encoder.fps, size=encoder.size):
        waiting.append(second)
        if len(waiting) == SECONDS_AT_ONCE:
            rows.append(encoder(torch.from_numpy(np.stack(waiting))).float().cpu().numpy())
            waiting = []
    if waiting:
        rows.append(encoder(torch.from_numpy(np.stack(waiting))).float().cpu().numpy())
    return np.concatenate(rows).astype(np.float16)


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


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
