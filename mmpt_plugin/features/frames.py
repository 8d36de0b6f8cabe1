"""Frames sampled sparsely from clips. N frames asked for, T frames there are, H x W pixels."""

import math
from dataclasses import dataclass

SAMPLINGS = ("uniform", "head", "tail")


@dataclass(kw_only=True)
class FramesConfig:
    num_frames: int = 12
    """Of a clip at most; one that is too short has fewer, none twice."""
    size: int = 224
    """Pixels: the shorter side is scaled to it, the centre cropped."""
    sampling: str = "uniform"
    """uniform, head or tail, see `frame_times`."""

    def __post_init__(self) -> None:
        if self.num_frames < 1 or self.size < 1:
            raise ValueError(
                f"frames.num_frames and frames.size must be at least 1, got {self.num_frames} and {self.size}"
            )
        if self.sampling not in SAMPLINGS:
            raise ValueError(f"frames.sampling must be one of {', '.join(SAMPLINGS)}, got '{self.sampling}'")


def frame_times(start: float, end: float, *, num_frames: int, sampling: str) -> list[float]:
    """When to look at a clip, in seconds, ascending, as CLIP4Clip names its ways (Luo et al., 2021, section 3.4).

    uniform: the middles of num_frames equal parts. head, tail: of the frames at one a second from the start on, the
    first or the last num_frames.
    """
    if not start < end:
        raise ValueError(f"a clip ends after it starts, got {start:g} to {end:g} s")
    if sampling == "uniform":
        return [start + (end - start) * (i + 0.5) / num_frames for i in range(num_frames)]
    seconds = [start + i for i in range(math.ceil(end - start))]
    return seconds[:num_frames] if sampling == "head" else seconds[-num_frames:]
