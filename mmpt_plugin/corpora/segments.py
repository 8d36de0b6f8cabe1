"""Segments of a video, each with a label: how they are checked, and how they become a label a second."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Segment(NamedTuple):
    """From `start` to `end` (seconds) the label is `label`."""

    start: float
    end: float
    label: int


@dataclass(frozen=True)
class SegmentedVideo:
    """`where` is the record in the annotations; `group` says which list of labels is the video's, if there are many."""

    video_id: str
    segments: tuple[Segment, ...]
    where: str
    group: str = ""


def seconds_of(segment: Segment) -> slice:
    """The seconds that hold any of a segment."""
    return slice(math.floor(segment.start), math.ceil(segment.end))


def frame_labels(segments: Iterable[Segment], num_seconds: int) -> Int[np.ndarray, " T"]:
    """One label a second, 0 where there is none; where segments overlap the last one counts."""
    labels = np.zeros(num_seconds, dtype=np.int64)
    for segment in segments:
        labels[seconds_of(segment)] = segment.label
    return labels


def steps_shown(segments: Iterable[Segment], num_seconds: int, num_steps: int) -> Bool[np.ndarray, "T K"]:
    """Which of the steps each second shows; several may overlap."""
    shown = np.zeros((num_seconds, num_steps), dtype=bool)
    for segment in segments:
        shown[seconds_of(segment), segment.label] = True
    return shown


def labels_to_segments(labels: Int[np.ndarray, " T"]) -> list[Segment]:
    """The segments that a label a second amounts to, those of label 0 left out."""
    borders = np.flatnonzero(np.diff(labels, prepend=0, append=0))
    pairs = [(int(a), int(b)) for a, b in pairwise(borders)]
    return [Segment(float(a), float(b), int(labels[a])) for a, b in pairs if labels[a]]


def window_starts(num_seconds: int, *, window: int, stride: int) -> range:
    """First seconds of sliding windows; the last is the first window that reaches the end."""
    return range(0, max(num_seconds - window + stride, 1), stride)


def overlaps(video: SegmentedVideo) -> list[tuple[Segment, Segment]]:
    """Pairs of segments that share time, neighbors in time only."""
    ordered = sorted(video.segments)
    return [(one, other) for one, other in pairwise(ordered) if other.start < one.end]


def past_the_end(video: SegmentedVideo, num_seconds: int) -> list[Segment]:
    """Segments that start after the features' last second."""
    return [segment for segment in video.segments if segment.start >= num_seconds]


def check_labels(labels: Sequence[tuple[str, int, str]], path: str) -> list[str]:
    """The names of labels numbered from 1 without a gap, from records of each one's place, number and name."""
    names: dict[int, str] = {}
    for where, number, name in labels:
        if names.setdefault(number, name) != name:
            raise ValueError(f"{where}: label {number} is '{name}', but '{names[number]}' elsewhere")
    if gaps := set(range(1, max(names, default=0) + 1)) ^ names.keys():
        raise ValueError(f"{path}: labels are numbered from 1 without a gap, but for {sorted(gaps)[:5]}")
    return [names[number] for number in sorted(names)]
