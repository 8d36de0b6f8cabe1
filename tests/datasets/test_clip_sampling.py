"""Where clips are cut: hand-worked cases, edge cases, and the distributions that the paper describes."""

import numpy as np
import pytest

from mmpt_plugin.datasets.clip_sampling import ClipLengths, aligned_video_clips, overlapped_video_clips, text_clips

LENGTHS = ClipLengths()


def captions(counts, seconds=3.0):
    """Captions one after another, `counts[i]` tokens in each."""
    starts = np.arange(len(counts)) * seconds
    times = np.stack([starts, starts + seconds], axis=1).astype(np.float32)
    return times, np.concatenate([[0], np.cumsum(counts)])


def draw(counts, num_pairs=2000, lengths=LENGTHS, seed=0, seconds=3.0):
    times, offsets = captions(counts, seconds)
    first, last = np.zeros(num_pairs, dtype=np.int64), np.full(num_pairs, len(counts))
    begin, end = text_clips(times, offsets, first, last, lengths=lengths, rng=np.random.default_rng(seed))
    return begin, end, offsets[end] - offsets[begin]


def test_a_text_clip_stops_growing_once_it_holds_what_was_drawn_for_it():
    """7 tokens a caption and a budget of 20: three captions hold 21, two hold 14."""
    _, _, tokens = draw([7] * 40, lengths=ClipLengths(min_text_len=20, max_text_len=20))
    assert set(tokens) == {21}


def test_budgets_are_uniform_between_the_limits():
    """One token a caption: the clip has exactly the drawn length, unless a border is near."""
    _, _, tokens = draw([1] * 4000, num_pairs=20000, seconds=0.1)
    assert tokens.min() == 8
    assert tokens.max() == 61
    counts = np.bincount(tokens)[8:62]
    assert np.abs(counts / 20000 - 1 / 54).max() < 4 * np.sqrt(1 / 54 / 20000)


def test_a_text_clip_grows_to_both_sides_of_its_first_caption():
    """With three captions of room and two to add, left and right are equally likely: 1/4, 1/2, 1/4."""
    counts = [1] * 2001
    times, offsets = captions(counts)
    rng = np.random.default_rng(0)
    pairs = 8000
    first, last = np.zeros(pairs, dtype=np.int64), np.full(pairs, len(counts))
    begin, _ = text_clips(times, offsets, first, last, lengths=ClipLengths(min_text_len=3, max_text_len=3), rng=rng)
    centre = np.random.default_rng(0).integers(first, last)
    inside = (centre > 3) & (centre < 1997)
    shares = np.bincount((centre - begin)[inside], minlength=3) / inside.sum()
    np.testing.assert_allclose(shares, [0.25, 0.5, 0.25], atol=0.02)


def test_a_text_clip_grows_to_both_sides_over_many_steps():
    """39 steps, more than are worked out at a time: to the left as often as heads come in 39 throws."""
    counts, pairs = [1] * 4001, 8000
    times, offsets = captions(counts, seconds=1.0)
    first, last = np.zeros(pairs, dtype=np.int64), np.full(pairs, len(counts))
    lengths = ClipLengths(min_text_len=40, max_text_len=40)
    begin, end = text_clips(times, offsets, first, last, lengths=lengths, rng=np.random.default_rng(0))
    centre = np.random.default_rng(0).integers(first, last)
    inside = (centre > 40) & (centre < 3960)
    left = (centre - begin)[inside]
    assert (end - begin == 40).all()
    assert left.mean() == pytest.approx(39 / 2, abs=0.2)
    assert left.std() == pytest.approx(np.sqrt(39) / 2, rel=0.05)


def test_a_text_clip_at_the_border_grows_to_the_other_side():
    begin, end, _ = draw([1] * 10, lengths=ClipLengths(min_text_len=10, max_text_len=10))
    assert set(begin) == {0}
    assert set(end) == {10}


def test_captions_without_tokens_do_not_stop_the_growth():
    begin, end, tokens = draw([0] * 50 + [30])
    assert (tokens[end == 51] == 30).all()
    assert ((begin == 0) | (end == 51)).all()


def test_a_text_clip_spans_no_more_than_its_limit_and_one_caption():
    begin, end, _ = draw([1] * 100, seconds=60.0)
    assert ((end - begin) * 60 < 256 + 60).all()


def test_a_pair_uses_its_own_video_only():
    times, offsets = captions([5] * 30)
    first, last = np.array([0, 10, 20] * 500), np.array([10, 20, 30] * 500)
    begin, end = text_clips(times, offsets, first, last, lengths=LENGTHS, rng=np.random.default_rng(0))
    assert (begin >= first).all()
    assert (end <= last).all()
    assert (begin < end).all()


def test_video_clips_overlap_their_text_and_have_uniform_lengths():
    pairs = 20000
    start, end = np.full(pairs, 100.2, dtype=np.float32), np.full(pairs, 110.7, dtype=np.float32)
    begin, stop = overlapped_video_clips(start, end, np.full(pairs, 300), lengths=LENGTHS, rng=np.random.default_rng(0))
    assert (begin <= 111).all()
    assert (stop >= 100).all()
    lengths = stop - begin
    assert lengths.min() == 3
    assert lengths.max() == 32
    assert np.abs(np.bincount(lengths)[3:33] / pairs - 1 / 30).max() < 0.006
    assert (begin + stop).mean() / 2 == pytest.approx(105.5, abs=0.1)  # centres are uniform over 100..111


def test_a_video_clip_stays_inside_its_video():
    """A centre at second 0 of a 5 s video: all growth goes right, and 5 s is all there is."""
    begin, stop = overlapped_video_clips(
        np.zeros(100), np.zeros(100), np.full(100, 5), lengths=LENGTHS, rng=np.random.default_rng(0)
    )
    assert (begin == 0).all()
    assert set(stop) == {3, 4, 5}


def test_captions_after_the_end_of_the_video_take_its_last_seconds():
    begin, stop = overlapped_video_clips(
        np.full(50, 400.0), np.full(50, 410.0), np.full(50, 60), lengths=LENGTHS, rng=np.random.default_rng(0)
    )
    assert set(stop) <= {59, 60}  # 59 where every second was added on the left of the last one
    assert (begin >= 59 - 32).all()


def test_aligned_clips_take_the_seconds_of_their_text():
    """[2.5, 7.2) covers seconds 2..7; a clip longer than 32 s is cut; one after the end takes the last second."""
    begin, stop = aligned_video_clips(
        np.array([2.5, 0.0, 90.0]), np.array([7.2, 50.0, 95.0]), np.array([60, 60, 60]), lengths=LENGTHS
    )
    assert begin.tolist() == [2, 0, 59]
    assert stop.tolist() == [8, 32, 60]


def test_an_aligned_clip_of_a_text_without_length_is_one_second():
    begin, stop = aligned_video_clips(np.array([3.0]), np.array([3.0]), np.array([60]), lengths=LENGTHS)
    assert (begin.tolist(), stop.tolist()) == ([3], [4])


def test_equal_generators_draw_equal_clips():
    first = draw([3] * 30, seed=5)
    second = draw([3] * 30, seed=5)
    for a, b in zip(first, second, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("wrong", [{"min_text_len": 0}, {"min_video_len": 40}])
def test_impossible_lengths_are_refused(wrong):
    with pytest.raises(ValueError, match="must hold, got"):
        ClipLengths(**wrong)
