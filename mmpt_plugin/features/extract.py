"""Videos -> one feature row a second, an .npy file a video, or frames in shards; resumable, by several processes."""

import json
import logging
import multiprocessing
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from rich.console import Console
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
from mmpt_plugin.features.files import read_features, write_features
from mmpt_plugin.features.frame_cache import EncodedVideo, FrameEncoder, FrameShards
from mmpt_plugin.features.video import SUFFIXES, read_seconds

SECONDS_AT_ONCE = 16
PIXELS_AT_ONCE = 2**23  # S3D at full size: 5 seconds and 1.5 GB a process; 16 would be 3 GB, and no faster


@dataclass
class ExtractReport:
    done: int = 0
    skipped: int = 0
    """Finished before, from the same file by the same encoder."""
    seconds: int = 0
    failed: dict[str, str] = field(default_factory=dict)
    """Video file -> why it has no features."""

    def __str__(self) -> str:
        total = self.done + self.skipped + len(self.failed)
        line = f"{self.done} videos extracted ({self.seconds} s), {self.skipped} were there"
        if self.failed:
            line = f"{len(self.failed)} of {total} videos failed, {line}"
        return "\n".join([line, *(f"failed: {reason}" for reason in self.failed.values())])


class ExtractionFailed(ValueError):
    """Some videos have no features; the others have."""

    def __init__(self, report: ExtractReport) -> None:
        super().__init__(str(report))
        self.report = report


def extract(
    videos: Sequence[Path],
    out: Path,
    *,
    encoder: Mapping[str, Any],
    num_workers: int = 1,
    allow_missing: bool = False,
) -> ExtractReport:
    """`out/{stem}.npy` (T, D) float16 for every video, or with the encoder `frames` its JPEGs in shards; `videos` are
    files, or one folder of them.

    A video that can't be decoded is named and counted; unless allow_missing, ExtractionFailed at the end says so.
    Files that are finished stay in any case. Each process takes the next GPU, where there are some.
    """
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")
    files = list_videos(videos)
    model: AnyEncoder = registry.encoders.build(encoder)
    out.mkdir(parents=True, exist_ok=True)
    frames = FrameShards(out, model) if isinstance(model, FrameEncoder) else None
    waiting = [path for path in files if not is_finished(path, out, model, frames)]
    report = ExtractReport(skipped=len(files) - len(waiting))
    try:
        with progress_bar() as progress:
            bar = progress.add_task("extracting", total=len(waiting))
            for path, outcome in run(waiting, out, model, dict(encoder), num_workers):
                if isinstance(outcome, str):
                    report.failed[str(path)] = outcome
                else:
                    if isinstance(outcome, EncodedVideo):
                        assert frames is not None
                        outcome = frames.add(outcome)
                    report.done += 1
                    report.seconds += outcome
                progress.advance(bar)
    finally:
        if frames is not None:
            frames.flush()
    if report.failed and not allow_missing:
        raise ExtractionFailed(report)
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


AnyEncoder = Encoder | FrameEncoder
Outcome = int | EncodedVideo | str  # the seconds of the file that was written, or what to write, or why there is none


def run(
    files: Sequence[Path], out: Path, model: AnyEncoder, encoder: dict[str, Any], num_workers: int
) -> Iterator[tuple[Path, Outcome]]:
    """Each file and its outcome, as they finish; `model` is `encoder` built, for where no workers are started."""
    if min(num_workers, len(files)) <= 1:
        for path in files:
            yield path, extract_one(path, out, model)
        return
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(
        min(num_workers, len(files)),
        spawn,
        initializer=start_worker,
        initargs=(encoder, max(1, (os.cpu_count() or 1) // num_workers), spawn.Value("i", 0)),
    )
    try:
        path_of = {pool.submit(extract_in_worker, path, out): path for path in files}
        for future in as_completed(path_of):
            yield path_of.pop(future), future.result()  # popped, since a result may be a video's frames
    except BrokenProcessPool as error:
        raise ValueError(
            f"one of {num_workers} processes died, perhaps for want of memory; run again to go on, with fewer of them"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


_encoder: AnyEncoder | None = None


def start_worker(encoder: dict[str, Any], threads: int, started: Any) -> None:
    """Each process builds the encoder once; what there is to warn of, the first process has said."""
    global _encoder
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    _encoder = registry.encoders.build(encoder)


def extract_in_worker(path: Path, out: Path) -> Outcome:
    assert _encoder is not None
    return extract_one(path, out, _encoder)


def extract_one(path: Path, out: Path, encoder: AnyEncoder) -> Outcome:
    target, about = output_files(path, out)
    try:
        made_from = origin(path, encoder)
        if isinstance(encoder, FrameEncoder):
            return encoder(path, made_from)
        features = encode(path, encoder)
        if not np.isfinite(features).all():
            return f"{path}: its features hold NaN or infinity"
        about.unlink(missing_ok=True)
        write_features(target, features)
        write_whole(about, lambda beside: beside.write_text(json.dumps(made_from)))
    except ValueError as error:
        return str(error)
    except OSError as error:
        return f"{path}: {error.strerror or error}: {error.filename or target}"
    return len(features)


def is_finished(path: Path, out: Path, encoder: AnyEncoder, frames: FrameShards | None) -> bool:
    """Whether readable features, or frames, are there, made from this very file by an equal encoder."""
    target, about = output_files(path, out)
    try:
        if frames is not None:
            return bool(frames.made_from.get(path.stem) == origin(path, encoder))
        read_features(target)
        return bool(json.loads(about.read_text()) == origin(path, encoder))
    except (ValueError, OSError):
        return False


def output_files(path: Path, out: Path) -> tuple[Path, Path]:
    """The features, and beside them what they were made from."""
    return out / f"{path.stem}.npy", out / f"{path.stem}.json"


def origin(path: Path, encoder: AnyEncoder) -> dict[str, Any]:
    stat = path.stat()
    return {"bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "encoder": encoder.fingerprint}


@torch.inference_mode()
def encode(path: Path, encoder: Encoder) -> Float[np.ndarray, "T D"]:
    """A few seconds of frames are in memory at a time."""
    rows = []
    at_once = max(1, min(SECONDS_AT_ONCE, PIXELS_AT_ONCE // (encoder.fps * encoder.size**2)))
    seconds = read_seconds(path, fps=encoder.fps, size=encoder.size)
    while waiting := list(islice(seconds, at_once)):
        rows.append(encoder(torch.from_numpy(np.stack(waiting))).float().cpu().numpy())
    return np.concatenate(rows).astype(np.float16)


def progress_bar() -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
        console=Console(stderr=True),
    )
