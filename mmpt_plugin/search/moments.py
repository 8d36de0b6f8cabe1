"""Moments: the windows that a search shows, without overlaps, and how far they are above the usual scores."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from mmpt_plugin.search.stores.store import Hit


@dataclass(frozen=True)
class Moment:
    """A part of a video."""

    video: str
    """The video's id in the collection: the name of the indexed folder and the path below it."""
    path: Path
    """The video file."""
    start: float
    """Seconds from the beginning of the video."""
    end: float
    score: float
    """Dot product of its vector with the vector that was searched for: the model's own similarity."""
    strength: float
    """How many standard deviations the score is above the mean score of the collection. There is no threshold: a
    sentence about something that no video shows may also reach 2 or 3."""


def without_overlaps(hits: Iterable[Hit], k: int) -> list[Hit]:
    """The best `k` hits, of which no two of the same video overlap; `hits` are sorted by score.

    Overlapping windows are dropped, not joined: joining makes long moments that begin too early and end too late.
    """
    chosen: list[Hit] = []
    for hit in hits:
        if len(chosen) == k:
            break
        if not any(overlap(hit, other) for other in chosen):
            chosen.append(hit)
    return chosen


def overlap(first: Hit | Moment, second: Hit | Moment) -> bool:
    """Whether two windows are of one video and share time."""
    return first.video == second.video and first.start < second.end and second.start < first.end


def window_at(starts: Sequence[float], ends: Sequence[float], second: float) -> int | None:
    """The window whose middle is nearest to a second of the video; None if no window contains it."""
    around = [i for i, (start, end) in enumerate(zip(starts, ends, strict=True)) if start <= second <= end]
    return min(around, key=lambda i: abs((starts[i] + ends[i]) / 2 - second), default=None)
