"""Sample frames sparsely from clips. N frames requested, T frames available, H x W pixels."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, runtime_checkable

import numpy as np
import torch
from jaxtyping import UInt8
from torch import Tensor

Picture = UInt8[np.ndarray, "H W 3"]

SAMPLINGS = ("uniform", "head", "tail")


@dataclass(kw_only=True)
class FramesConfig:
    """Which frames of a clip are read."""

    num_frames: int = 12
    """Maximum number of frames per clip; a short clip has fewer, because no frame is repeated."""
    size: int = 224
    """Pixels of the square frames: the shorter side is scaled to it, then the center is cropped."""
    sampling: str = "uniform"
    """uniform: the middles of equal parts of the clip. head, tail: the first or the last frames at one per second
    (CLIP4Clip, Luo et al., 2021, section 3.4)."""

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.size < 1:
            raise ValueError(
                f"frames.num_frames and frames.size must be at least 1, got {self.num_frames} and {self.size}"
            )
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"frames.sampling must be one of {', '.join(SAMPLINGS)}, got '{self.sampling}'")


def frame_times(start: float, end: float, *, num_frames: int, sampling: str) -> list[float]:
    """Times to sample in a clip, in seconds, ascending, with the strategies of CLIP4Clip (Luo et al., 2021, 3.4).

    uniform: the middles of num_frames equal parts. head, tail: the first or the last num_frames of the frames at one
    per second, beginning at the start.
    """
    if not start < end:
        raise ValueError(f"a clip must end after it starts, got {start:g} to {end:g} s")
    if sampling == "uniform":
        return [start + (end - start) * (i + 0.5) / num_frames for i in range(num_frames)]
    seconds = [start + i for i in range(math.ceil(end - start))]
    return seconds[:num_frames] if sampling == "head" else seconds[-num_frames:]


@runtime_checkable
class Videos(Protocol):
    """Videos by id, as files or as cached frames. Test with `in` whether an id exists before you use it."""

    def __contains__(self, video_id: str) -> bool: ...

    def ids(self) -> list[str]:
        """All ids, sorted; for video files, including those that cannot be opened."""

    def duration(self, video_id: str) -> float:
        """Duration in seconds."""

    def frames_at(self, video_id: str, times: Sequence[float], *, size: int) -> Iterator[Picture | None]:
        """For each time (seconds, ascending) the frame shown; None if it is the same frame as at the previous time."""

    def content(self, video_id: str) -> bytes:
        """A digest of the video's data."""


def read_clips(
    videos: Videos, video_id: str, clips: Sequence[tuple[float, float]], config: FramesConfig
) -> list[UInt8[Tensor, "_ H W 3"]]:
    """The frames of clips (start, end in seconds) of one video, read in one pass.

    No frame is repeated within a clip. Clips are cut at the end of the video. For a clip that starts after the end,
    which can happen if the features were made from another file, the last second is read.
    """
    duration = videos.duration(video_id)
    ends = [(min(start, max(duration - 1, 0.0)), min(end, duration)) for start, end in clips]
    of_clip = [frame_times(*own, num_frames=config.num_frames, sampling=config.sampling) for own in ends]
    times = sorted({time for own in of_clip for time in own})
    pictures: list[Picture] = []
    shown: dict[float, int] = {}
    for time, picture in zip(times, videos.frames_at(video_id, times, size=config.size), strict=True):
        if picture is not None:
            pictures.append(picture)
        shown[time] = len(pictures) - 1
    different = [dict.fromkeys(shown[time] for time in own) for own in of_clip]
    return [torch.from_numpy(np.stack([pictures[i] for i in own])) for own in different]
