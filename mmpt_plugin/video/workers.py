"""Process many videos in one or several processes: finished videos are skipped, failures are reported."""

import logging
import math
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any, TypeVar

import torch
from rich.console import Console, RenderableType
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from mmpt_plugin.errors import SeveralProblems
from mmpt_plugin.files import WriteFailed
from mmpt_plugin.signals import WorkerContext
from mmpt_plugin.terminal import one_line
from mmpt_plugin.video.clock import clock
from mmpt_plugin.video.store import VideoList, left_out_lines

QUEUED = 2  # videos given to the pool per process: a million at once would be gigabytes
PROBED = 1000  # videos whose duration is read before the first is processed

Result = TypeVar("Result")
# Processes one video (id, file), in any process; raises ValueError or OSError if it fails.
Work = Callable[[str, Path], Result]


@dataclass(frozen=True)
class Failure:
    """Why a video could not be processed, returned instead of raised so that the other videos continue."""

    reason: str


@dataclass(frozen=True)
class Times:
    """Seconds that processes spent on videos, and of these decoding and encoding; `str()` says how long each waited."""

    total: float = 0.0
    decoding: float = 0.0
    encoding: float = 0.0

    def __add__(self, other: "Times") -> "Times":
        return Times(self.total + other.total, self.decoding + other.decoding, self.encoding + other.encoding)

    def __str__(self) -> str:
        for_frames, for_encoding = (100 * (1 - busy / self.total) for busy in (self.encoding, self.decoding))
        return f"encoding waited {for_frames:.0f} % of the time for frames, decoding {for_encoding:.0f} % for encoding"


@dataclass
class ExtractReport:
    """Counts of finished, skipped and failed videos; `str()` formats them for the terminal."""

    done: int = 0
    skipped: int = 0
    """Finished in an earlier run, from the same file with the same encoder."""
    seconds: int = 0
    times: Times = Times()
    """Of the videos that an encoder encoded."""
    failed: dict[str, str] = field(default_factory=dict)
    """Video file -> why it has no features."""
    left_out: dict[str, str] = field(default_factory=dict)
    """Skipped file of the folder -> why it is not a video."""

    def __str__(self) -> str:
        total = self.done + self.skipped + len(self.failed)
        line = f"{self.done} videos extracted ({self.seconds} s), {self.skipped} already finished"
        if self.failed:
            line = f"{len(self.failed)} of {total} videos failed, {line}"
        times = [str(self.times)] if self.times.total and not self.failed else []
        failed = (f"failed: {one_line(reason)}" for reason in self.failed.values())
        return "\n".join([line, *times, *failed, *left_out_lines(self.left_out)])


class ExtractionFailed(SeveralProblems):
    """Some videos failed; the others are finished."""

    def __init__(self, report: ExtractReport) -> None:
        super().__init__(str(report))
        self.report = report


def work_through(
    videos: VideoList,
    work: Work[Result],
    *,
    build: Callable[[], Work[Result]],
    is_finished: Callable[[str, Path], bool],
    keep: Callable[[ExtractReport, Result], None],
    num_workers: int,
    allow_missing: bool,
) -> ExtractReport:
    """Call `work` for each unfinished video; `keep` stores its result in this process, and adds it to the report.

    Raises ExtractionFailed at the end if videos failed, unless allow_missing is set. Worker processes create their own
    `work` with `build`.
    """
    report = ExtractReport(left_out=dict(videos.left_out))
    waiting: list[tuple[str, Path]] = []
    for video_id, path in videos.items():
        finished = attempt(is_finished, video_id, path)
        if isinstance(finished, Failure):
            report.failed[str(path)] = finished.reason
        elif finished:
            report.skipped += 1
        else:
            waiting.append((video_id, path))
    for path, outcome in outcomes(waiting, work, build, num_workers, label="extracting"):
        if isinstance(outcome, Failure):
            report.failed[str(path)] = outcome.reason
        else:
            report.done += 1
            keep(report, outcome)
    if report.failed and not allow_missing:
        raise ExtractionFailed(report)
    return report


def check_num_workers(num_workers: int) -> None:
    """ValueError unless there is at least one worker."""
    if num_workers < 1:
        raise ValueError(f"num_workers must be at least 1, got {num_workers}")


def outcomes(
    videos: list[tuple[str, Path]],
    work: Work[Result],
    build: Callable[[], Work[Result]],
    num_workers: int,
    *,
    label: str,
) -> Iterator[tuple[Path, Result | Failure]]:
    """Each file and its outcome, in order of completion, with a progress bar of this label.

    `work` is used if no worker processes are started.
    """
    global _seconds
    spawn = WorkerContext()
    _seconds = spawn.Value("d", 0.0)
    with SecondsProgress(label, videos, _seconds):
        if min(num_workers, len(videos)) <= 1:
            for video_id, path in videos:
                yield path, attempt(work, video_id, path)
            return
        threads = max(1, (os.cpu_count() or 1) // num_workers)
        pool = ProcessPoolExecutor(
            min(num_workers, len(videos)),
            spawn,
            initializer=start_worker,
            initargs=(build, threads, spawn.Value("i", 0), _seconds),
        )
        try:
            waiting, path_of = iter(videos), dict[Future[Result | Failure], Path]()
            while True:
                for video_id, path in islice(waiting, QUEUED * num_workers - len(path_of)):
                    path_of[pool.submit(attempt_in_worker, video_id, path)] = path
                if not path_of:
                    return
                for future in wait(path_of, return_when=FIRST_COMPLETED).done:
                    yield path_of.pop(future), future.result()
        except BrokenProcessPool as error:
            raise ValueError(
                f"one of {num_workers} processes died, perhaps out of memory: run again with fewer --workers to "
                "continue"
            ) from error
        finally:
            pool.shutdown(cancel_futures=True)


def attempt(work: Work[Result], video_id: str, path: Path) -> Result | Failure:
    """Process one video; a ValueError or OSError becomes a `Failure`.

    Other errors are raised, and so is `WriteFailed`: if the disk is full, the next video fails as well.
    """
    try:
        return work(video_id, path)
    except WriteFailed:
        raise
    except ValueError as error:
        return Failure(str(error))
    except OSError as error:
        where = f": {error.filename}" if error.filename and Path(error.filename) != path else ""
        return Failure(f"{path}: {error.strerror or error}{where}")


_work: Work[Any] | None = None
_seconds: Any = None  # a number in shared memory: the seconds of video that all processes have decoded


def advance(seconds: float | int) -> None:
    """Report that this process has decoded more seconds of video, for the progress bar."""
    if _seconds is not None:
        with _seconds.get_lock():
            _seconds.value += seconds


def start_worker(build: Callable[[], Work[Any]], threads: int, started: Any, seconds: Any) -> None:
    """Build the encoder once per process. Warnings are disabled, because the main process has logged them."""
    global _work, _seconds
    _seconds = seconds
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    with started.get_lock():
        number, started.value = started.value, started.value + 1
    if torch.cuda.is_available():
        torch.cuda.set_device(number % torch.cuda.device_count())
    _work = build()


def attempt_in_worker(video_id: str, path: Path) -> Any:
    """Process one video with the encoder that `start_worker` built."""
    assert _work is not None
    return attempt(_work, video_id, path)


class SecondsProgress(Progress):
    """A bar on stderr: the seconds of video decoded, of those of all files, the time elapsed and the time left.

    Of more than PROBED files, the seconds are estimated from that many.
    """

    def __init__(self, label: str, videos: list[tuple[str, Path]], seconds: Any) -> None:
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            TextColumn("{task.fields[done]} of {task.fields[all]} of video"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=Console(stderr=True),
        )
        self.seconds = seconds
        probed = videos[:: -(-len(videos) // PROBED) or 1]
        total = math.fsum(stated_seconds(path) for _, path in probed) * len(videos) / max(1, len(probed))
        about = "about " if len(probed) < len(videos) else ""
        self.add_task(label, total=total, done=clock(0.0), all=about + clock(total))

    def get_renderables(self) -> Iterable[RenderableType]:
        """Read the number of seconds each time the bar is drawn."""
        for bar in self.task_ids:
            self.update(bar, completed=self.seconds.value, done=clock(self.seconds.value))
        return super().get_renderables()


def stated_seconds(path: Path) -> float:
    """The duration that a video file states; 0 if it states none or can't be opened, which is reported later."""
    from mmpt_plugin.video.decode import probe  # PyAV is an extra

    try:
        return probe(path).duration
    except (ValueError, OSError):
        return 0.0
