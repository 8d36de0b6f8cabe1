"""Sample frames sparsely from clips. N frames requested, T frames available, H x W pixels."""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from numpy.random import Generator
from torch import Tensor

Picture = UInt8[np.ndarray, "H W 3"]

SAMPLINGS = ("uniform", "head", "tail", "clip4clip", "clip2video")
LIST_FPS = 5  # frames per second in CLIP2Video's folders of JPEGs
MOVED_FROM = 6  # the distance of frames from which CLIP2Video moves them in training


@dataclass(kw_only=True)
class FramesConfig:
    """Which frames of a clip are read."""

    num_frames: int = 12
    """Maximum number of frames per clip; a short clip has fewer, because no frame is repeated."""
    size: int = 224
    """Pixels of the square frames: the shorter side is scaled to it, then the center is cropped."""
    sampling: str = "uniform"
    """uniform: the middles of equal parts of the clip.

    clip4clip: the first frame of each second, and num_frames of these, evenly spread from the first to the last (the
    code of CLIP4Clip, Luo et al., 2021, `slice_framepos` 2). head, tail: the first, or the last, num_frames of them
    (`slice_framepos` 0 and 1). clip2video: the clip at 5 frames per second, thinned by feature_framerate, and
    num_frames of the rest, evenly spread from the first to the last; in training, the others move by up to half the
    distance between them (the code of CLIP2Video, Fang et al., 2021)."""
    feature_framerate: int = 1
    """For clip4clip, head and tail: the number of frames per second to choose from; CLIP4Clip uses 1. For clip2video:
    one of how many of the 5 frames per second to choose from; CLIP2Video uses 2 on MSR-VTT, 1 on MSVD and VATEX."""

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.size < 1:
            raise ValueError(
                f"frames.num_frames and frames.size must be at least 1, got {self.num_frames} and {self.size}"
            )
        check_sampling(self, key="frames")


def check_sampling(config: Any, *, key: str) -> None:
    """ValueError for an unknown `sampling`, or a `feature_framerate` below 1; `key` is the section for the message."""
    if config.sampling not in SAMPLINGS:
        raise ValueError(f"{key}.sampling must be one of {', '.join(SAMPLINGS)}, got '{config.sampling}'")
    if config.feature_framerate < 1:
        raise ValueError(f"{key}.feature_framerate must be at least 1, got {config.feature_framerate}")


def sample_times(
    start: float, end: float, config: FramesConfig, *, duration: float, fps: float, rng: Generator | None = None
) -> list[float]:
    """Times to read in a clip from `start` to `end` of a video, all in seconds, ascending.

    `fps` is the video's frame rate; `rng` moves the frames of clip2video, for training.
    """
    if not start < end:
        raise ValueError(f"a clip must end after it starts, got {start:g} to {end:g} s")
    most, rate = config.num_frames, config.feature_framerate
    if config.sampling == "uniform":
        return [start + (end - start) * (i + 0.5) / most for i in range(most)]
    # A time in the middle of a frame, because timestamps are rounded.
    if config.sampling == "clip2video":
        numbers = listed_frames(round((end - start) * LIST_FPS), num_frames=most, feature_framerate=rate, rng=rng)
        return [min(start + (number + 0.5) / LIST_FPS, end) for number in numbers]
    if fps <= 0:
        raise ValueError(f"frames.sampling {config.sampling} needs the video's frame rate, which it does not state")
    last = max(round(duration * fps), 1) - 1
    numbers = frames_of_seconds(int(start), math.ceil(end), last=last, fps=fps, rate=rate)
    chosen = {"head": numbers[:most], "tail": numbers[-most:], "clip4clip": spread(numbers, most)}[config.sampling]
    return [(number + 0.5) / fps for number in chosen]


def frames_of_seconds(start: int, end: int, *, last: int, fps: float, rate: int = 1) -> list[int]:
    """The numbers of the first `rate` evenly spaced frames of each second, of those up to `last`.

    CLIP4Clip counts seconds of int(fps) frames, from second `start` to second `end`, which is included. If the video
    ends before, its last frame.
    """
    per_second = max(int(fps), 1)
    step = max(per_second // rate, 1)
    offsets = range(0, min(step * rate, per_second), step)
    numbers = [second * per_second + offset for second in range(start, end + 1) for offset in offsets]
    return [number for number in numbers if number <= last] or [last]


def listed_frames(
    count: int, *, num_frames: int, feature_framerate: int = 1, rng: Generator | None = None
) -> list[int]:
    """The frames that CLIP2Video reads of a folder of `count`: one of feature_framerate, then num_frames of these.

    With `rng`, if they are 6 or more apart, all but the first and the last move by up to half of that distance.
    """
    thinned = spread(range(count), max(count // feature_framerate, 1)) or [0]
    places = spread(range(len(thinned)), num_frames)
    step = places[1] - places[0] if len(places) > 1 else 0
    if rng is not None and step >= MOVED_FROM:
        moves = rng.integers(-(step // 2), step // 2, size=len(places) - 2)
        places[1:-1] = [place + int(move) for place, move in zip(places[1:-1], moves, strict=True)]
    return [thinned[place] for place in places]


def spread(numbers: Sequence[int], most: int) -> list[int]:
    """At most `most` of the numbers, evenly spread, the first and the last among them; of one, the first."""
    places: list[int] = np.linspace(0, len(numbers) - 1, min(most, len(numbers)), dtype=int).tolist()
    return [numbers[place] for place in places]


@runtime_checkable
class Videos(Protocol):
    """Videos by id, as files or as cached frames. Test with `in` whether an id exists before you use it."""

    def __contains__(self, video_id: str) -> bool: ...

    def ids(self) -> list[str]:
        """All ids, sorted; for video files, including those that cannot be opened."""

    def duration(self, video_id: str) -> float:
        """Duration in seconds."""

    def frame_rate(self, video_id: str) -> float:
        """Frames per second; 0 if the video does not state it."""

    def frames_at(self, video_id: str, times: Sequence[float], *, size: int) -> Iterator[Picture | None]:
        """For each time (seconds, ascending) the frame shown; None if it is the same frame as at the previous time."""

    def content(self, video_id: str) -> bytes:
        """A digest of the video's data."""


def read_clips(
    videos: Videos,
    video_id: str,
    clips: Sequence[tuple[float, float]],
    config: FramesConfig,
    *,
    rng: Generator | None = None,
) -> list[UInt8[Tensor, "_ H W 3"]]:
    """The frames of clips (start, end in seconds) of one video, read in one pass; `rng` is for training.

    No frame is repeated within a clip. Clips are cut at the end of the video. For a clip that starts after the end,
    which can happen if the features were made from another file, the last second is read.
    """
    duration, fps = videos.duration(video_id), videos.frame_rate(video_id)
    ends = [(min(start, max(duration - 1, 0.0)), min(end, duration)) for start, end in clips]
    of_clip = [sample_times(*own, config, duration=duration, fps=fps, rng=rng) for own in ends]
    times = sorted({time for own in of_clip for time in own})
    pictures, shown = distinct_frames(times, videos.frames_at(video_id, times, size=config.size))
    different = [dict.fromkeys(shown[time] for time in own) for own in of_clip]
    return [torch.from_numpy(np.stack([pictures[i] for i in own])) for own in different]


def distinct_frames(times: Sequence[float], frames: Iterable[Picture | None]) -> tuple[list[Picture], dict[float, int]]:
    """The different frames among those at `times`, in which None repeats the previous one; and the number of each
    time's frame."""
    pictures: list[Picture] = []
    shown: dict[float, int] = {}
    for time, picture in zip(times, frames, strict=True):
        if picture is not None:
            pictures.append(picture)
        shown[time] = len(pictures) - 1
    return pictures, shown
