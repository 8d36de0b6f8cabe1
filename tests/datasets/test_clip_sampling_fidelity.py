"""Our clips against 100,000 recorded draws of the original's samplers on each of six videos."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.datasets.clip_sampling import ClipLengths, aligned_video_clips, overlapped_video_clips, text_clips

GOLDEN = Path(__file__).parents[1] / "golden"
VIDEOS = json.loads((GOLDEN / "sampling_videos.json").read_text())["videos"]
DRAWS = 100_000
# Two samples of this size from one distribution differ by more than this once in a million comparisons.
LARGEST = np.sqrt(-np.log(1e-6 / 2) / DRAWS)


def distance(recorded, name, ours):
    """Kolmogorov and Smirnov's: the largest difference of the two cumulative distributions."""
    values, counts = recorded[f"{name}_values"], recorded[f"{name}_counts"]
    support = np.union1d(values, ours)
    order = np.argsort(values)
    theirs = np.concatenate([[0], np.cumsum(counts[order]) / counts.sum()])
    theirs = theirs[np.searchsorted(values[order], support, side="right")]
    return np.abs(theirs - np.searchsorted(np.sort(ours), support, side="right") / len(ours)).max()


def drawn(video, rng, **lengths):
    """Text clips as the original draws them, with its budget of up to 64 tokens."""
    times = np.stack([video["start"], video["end"]], axis=1)
    offsets = np.concatenate([[0], np.cumsum(video["cap_len"])])
    limits = ClipLengths(**{"max_text_budget": 64} | lengths)
    first, last = np.zeros(DRAWS, dtype=np.int64), np.full(DRAWS, len(times))
    begin, end = text_clips(times, offsets, first, last, lengths=limits, rng=rng)
    tokens = np.minimum(offsets[end] - offsets[begin], limits.max_text_len)
    text = {"text_start": begin, "text_end": end, "text_tokens": tokens}
    return text, (times[begin, 0], times[end - 1, 1], np.full(DRAWS, video["T"])), limits


@pytest.mark.parametrize("number", range(len(VIDEOS)))
def test_overlapped_clips_are_distributed_as_recorded(number):
    rng = np.random.default_rng(number)
    text, spoken, lengths = drawn(VIDEOS[number], rng)
    start, stop = overlapped_video_clips(*spoken, lengths=lengths, rng=rng)
    ours = text | {"video_start": start, "video_end": stop, "video_tokens": stop - start}
    with np.load(GOLDEN / "sampling_distributions.npz") as recorded:
        for name, values in ours.items():
            assert distance(recorded, f"v{number}_overlapped_{name}", values) < LARGEST, name


@pytest.mark.parametrize("number", [0, 1, 2, 3, 5])
def test_aligned_clips_are_distributed_as_recorded(number):
    """Video 4 has captions after its end, which the original pairs with no second at all."""
    rng = np.random.default_rng(number)
    text, spoken, lengths = drawn(VIDEOS[number], rng)
    start, stop = aligned_video_clips(*spoken, lengths=lengths)
    ours = text | {"video_start": start, "video_tokens": stop - start}
    with np.load(GOLDEN / "sampling_distributions.npz") as recorded:
        for name, values in ours.items():
            assert distance(recorded, f"v{number}_variedlen_{name}", values) < LARGEST, name


def test_the_paper_s_budget_is_told_apart():
    """In the paper a text clip grows to at most 61 tokens, in the original's code to 64: the tests above see that."""
    text, *_ = drawn(VIDEOS[2], np.random.default_rng(2), max_text_budget=None)
    with np.load(GOLDEN / "sampling_distributions.npz") as recorded:
        assert distance(recorded, "v2_overlapped_text_tokens", text["text_tokens"]) > LARGEST
