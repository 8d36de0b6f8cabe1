"""Sampling of overlapped clips: the boundaries of each pair's text and video clip (VideoCLIP, section 3.3).

All functions are vectorized over P pairs and take their random numbers from a Generator. The N captions of several
videos are concatenated in flat arrays; pair p may use the captions with index first[p] <= i < last[p].
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

Ints = Int[np.ndarray, " P"]

MAX_SPAN = 256.0  # seconds; a text clip of this duration stops growing
STEPS_CHUNK = 10  # growth steps computed at a time; a text clip of 61 tokens takes about nine


@dataclass(kw_only=True)
class ClipLengths:
    """Lengths of the sampled clips; the defaults are the paper's (VideoCLIP, section 5.2)."""

    min_text_len: int = 8
    """Smallest number of tokens drawn for a text clip; a clip has fewer if the video has fewer."""
    max_text_len: int = 61
    """Largest number of tokens of a text clip, without [CLS] and [SEP]; at most `model.max_text_len`. Longer clips are
    truncated."""
    max_text_budget: int | None = None
    """Largest number of tokens drawn for a text clip, before truncation to `max_text_len`. Null means `max_text_len`,
    as in the paper; the original code uses 64."""
    min_video_len: int = 3
    """Shortest video clip, in seconds; a clip is shorter only if the video is."""
    max_video_len: int = 32
    """Longest video clip, in seconds; at most `model.max_video_len`."""

    def __post_init__(self) -> None:
        for kind, low, high in (
            ("text", self.min_text_len, self.max_text_len),
            ("video", self.min_video_len, self.max_video_len),
        ):
            if not 1 <= low <= high:
                raise ValueError(f"dataset: 1 <= min_{kind}_len <= max_{kind}_len must hold, got {low} and {high}")
        if self.max_text_budget is not None and self.max_text_budget < self.min_text_len:
            raise ValueError(
                f"dataset.max_text_budget {self.max_text_budget} is below dataset.min_text_len {self.min_text_len}"
            )


def text_clips(
    caption_times: Float[np.ndarray, "N 2"],
    token_offsets: Int[np.ndarray, " M"],
    first: Ints,
    last: Ints,
    *,
    lengths: ClipLengths,
    rng: np.random.Generator,
) -> tuple[Ints, Ints]:
    """Text clips: runs of consecutive captions, begin <= i < end, one per pair.

    A run starts from a caption drawn uniformly and grows by whole captions, left or right with equal probability,
    until it has as many tokens as were drawn for it: min_text_len to max_text_budget, uniformly. The last caption may
    exceed this number; the caller truncates to max_text_len. The tokens of caption i are those with index
    token_offsets[i] to token_offsets[i + 1]; `caption_times` are start and end in seconds.
    """
    center = rng.integers(first, last)
    largest = lengths.max_text_budget or lengths.max_text_len
    budget = rng.integers(lengths.min_text_len, largest + 1, size=len(first))
    room_left, room_right = center - first, last - 1 - center
    begin, end = center.copy(), center + 1
    growing = np.arange(len(first))
    lefts = np.zeros(len(first), dtype=np.int64)  # number of "left" coins in the previous blocks
    step = 0
    while len(growing):
        coins = rng.integers(0, 2, size=(len(growing), STEPS_CHUNK), dtype=np.int8)
        taken = np.arange(step, step + STEPS_CHUNK + 1)
        said_left = np.zeros((len(growing), STEPS_CHUNK + 1), dtype=np.int64)
        np.cumsum(coins, axis=1, out=said_left[:, 1:])
        said_left += lefts[growing, None]
        left_room, right_room = room_left[growing, None], room_right[growing, None]
        # If one side has no captions left, the run grows on the other side, so the coins are clipped to the room.
        left = np.clip(said_left, taken - right_room, left_room)
        begins = center[growing, None] - left
        ends = center[growing, None] + (taken - left) + 1
        stop = taken >= left_room + right_room
        begins, ends = np.maximum(begins, first[growing, None]), np.minimum(ends, last[growing, None])
        stop |= token_offsets[ends] - token_offsets[begins] >= budget[growing, None]
        stop |= caption_times[ends - 1, 1] - caption_times[begins, 0] >= MAX_SPAN
        stopped = stop.any(axis=1)
        at = np.where(stopped, stop.argmax(axis=1), STEPS_CHUNK)[:, None]
        begin[growing] = np.take_along_axis(begins, at, axis=1)[:, 0]
        end[growing] = np.take_along_axis(ends, at, axis=1)[:, 0]
        lefts[growing] = said_left[:, -1]
        growing = growing[~stopped]
        step += STEPS_CHUNK
    return begin, end


def overlapped_video_clips(
    start: Float[np.ndarray, " P"],
    end: Float[np.ndarray, " P"],
    duration: Ints,
    *,
    lengths: ClipLengths,
    rng: np.random.Generator,
) -> tuple[Ints, Ints]:
    """Video clips, begin <= second < end, of random length around a random second of the text clip.

    The two clips overlap but need not start together: speech and the action it describes are rarely
    simultaneous. `start` and `end` are the text clip's times in seconds, `duration` is the video's in whole seconds.
    """
    low, high = np.floor(start).astype(np.int64), np.ceil(end).astype(np.int64)
    middle = np.floor((start + end) / 2).astype(np.int64)
    center = np.where(low < high, rng.integers(np.minimum(low, high), high + 1), middle)
    center = np.clip(center, 0, duration - 1)
    drawn = rng.integers(lengths.min_video_len, lengths.max_video_len + 1, size=len(duration))
    length = np.minimum(drawn, duration)
    # Each second is added to the left or right with equal probability; without room on one side, to the other.
    left = np.clip(rng.binomial(length, 0.5), length - (duration - center), center)
    return center - left, center - left + length


def aligned_video_clips(
    start: Float[np.ndarray, " P"],
    end: Float[np.ndarray, " P"],
    duration: Ints,
    *,
    lengths: ClipLengths,
) -> tuple[Ints, Ints]:
    """Video clips at the times of their text clips, truncated to max_video_len: the baseline for overlapped clips."""
    begin = np.clip(np.floor(start).astype(np.int64), 0, duration - 1)
    stop = np.clip(np.ceil(end).astype(np.int64), begin + 1, duration)
    return begin, np.minimum(stop, begin + lengths.max_video_len)
