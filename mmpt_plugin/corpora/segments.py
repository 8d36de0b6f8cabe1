"""Labelled segments of a video, their checks, and their conversion to labels per second.

T seconds, K steps.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Int


class Segment(NamedTuple):
    """A label from `start` to `end`, in seconds."""

    start: float
    end: float
    label: int


@dataclass(frozen=True)
class SegmentedVideo:
    """A video and its segments."""

    video_id: str
    segments: tuple[Segment, ...]
    where: str
    """Location in the annotations, for error messages."""
    group: str = ""
    """Key of the video's list of labels, for corpora with one list per task."""


def seconds_of(segment: Segment) -> slice:
    """The whole seconds that a segment overlaps."""
    return slice(math.floor(segment.start), math.ceil(segment.end))


def frame_labels(segments: Iterable[Segment], num_seconds: int) -> Int[np.ndarray, " T"]:
    """One label per second, 0 outside of segments; the last of overlapping segments takes precedence."""
    labels = np.zeros(num_seconds, dtype=np.int64)
    for segment in segments:
        labels[seconds_of(segment)] = segment.label
    return labels


def steps_shown(segments: Iterable[Segment], num_seconds: int, num_steps: int) -> Bool[np.ndarray, "T K"]:
    """Whether second t shows step k; segments may overlap."""
    shown = np.zeros((num_seconds, num_steps), dtype=bool)
    for segment in segments:
        shown[seconds_of(segment), segment.label] = True
    return shown


def labels_to_segments(labels: Int[np.ndarray, " T"]) -> list[Segment]:
    """The runs of equal labels as segments; runs of label 0 are omitted."""
    borders = np.flatnonzero(np.diff(labels, prepend=0, append=0))
    pairs = [(int(a), int(b)) for a, b in pairwise(borders)]
    return [Segment(float(a), float(b), int(labels[a])) for a, b in pairs if labels[a]]


def window_starts(num_seconds: int, *, window: int, stride: int) -> range:
    """The first seconds of sliding windows; the last window is the first that reaches the end."""
    return range(0, max(num_seconds - window + stride, 1), stride)


def overlaps(video: SegmentedVideo) -> list[tuple[Segment, Segment]]:
    """Pairs of consecutive segments, in order of time, that overlap."""
    ordered = sorted(video.segments)
    return [(one, other) for one, other in pairwise(ordered) if other.start < one.end]


def past_the_end(video: SegmentedVideo, num_seconds: int) -> list[Segment]:
    """The segments that start after the last second of the features."""
    return [segment for segment in video.segments if segment.start >= num_seconds]


def check_labels(labels: Sequence[tuple[str, int, str]], path: str) -> list[str]:
    """The names of labels 1, 2, ..., from (location, number, name) of each record.

    Two names for one number, and gaps in the numbers, are a ValueError.
    """
    names: dict[int, str] = {}
    for where, number, name in labels:
        if names.setdefault(number, name) != name:
            raise ValueError(f"{where}: label {number} is '{name}', but it is '{names[number]}' elsewhere")
    if gaps := set(range(1, max(names, default=0) + 1)) ^ names.keys():
        raise ValueError(f"{path}: labels must be numbered from 1 without gaps, but {sorted(gaps)[:5]} are missing")
    return [names[number] for number in sorted(names)]
