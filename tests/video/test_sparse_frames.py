"""Sparse frames: the correct times, without decoding more than necessary."""

import json
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.video.decode import timed
from mmpt_plugin.video.frame_cache import open_videos
from mmpt_plugin.video.sparse_frames import (
    FramesConfig,
    frames_of_seconds,
    listed_frames,
    read_clips,
    sample_times,
    spread,
)
from mmpt_plugin.video.write import write_video

GOLDEN = Path(__file__).parents[1] / "golden" / "clip_family" / "sampling"
CLIP4CLIP, CLIP2VIDEO = (json.loads((GOLDEN / f"{name}.json").read_text()) for name in ("clip4clip", "clip2video"))


class Recorded(np.random.Generator):
    """Draws the numbers of the recordings, which are those of NumPy's older generator."""

    def __init__(self, seed):
        super().__init__(np.random.MT19937())
        self.integers = np.random.RandomState(seed).randint


WHOLE = 10**6  # seconds: to the end of any video


@pytest.mark.parametrize(
    ("clip", "sampling", "times"),
    [
        ((10.0, 16.0), "uniform", [11, 13, 15]),
        ((0.0, 1.5), "uniform", [0.25, 0.75, 1.25]),
        ((10.0, 16.0), "head", [10.05, 11.05, 12.05]),  # the middle of a frame of a tenth of a second
        ((10.0, 16.0), "tail", [14.05, 15.05, 16.05]),
        ((10.5, 12.75), "head", [10.05, 11.05, 12.05]),
        ((3.0, 3.4), "head", [3.05, 4.05]),
        ((10.0, 16.0), "clip4clip", [10.05, 13.05, 16.05]),
        ((10.0, 16.0), "clip2video", [10.1, 12.9, 15.9]),  # frames 0, 14 and 29 of 30
        ((3.0, 3.1), "clip2video", [3.1]),
    ],
)
def test_three_frames_of_a_clip(clip, sampling, times):
    config = FramesConfig(num_frames=3, sampling=sampling)
    assert sample_times(*clip, config, duration=100.0, fps=10.0) == pytest.approx(times)


@pytest.mark.parametrize("case", CLIP4CLIP["read"] + CLIP4CLIP["spans"])
def test_seconds_have_the_frames_that_clip4clip_reads(case):
    count, fps, rate, *span, expected = case
    start, end = span or (0, WHOLE)
    if expected == "AssertionError":  # more frames per second than there are: here, all of them
        expected = list(range(count))
    expected = expected or [count - 1]  # the span begins after the end of the video, of which the original reads none
    assert frames_of_seconds(start, min(end, count), last=count - 1, fps=fps, rate=rate) == expected


@pytest.mark.parametrize("case", CLIP4CLIP["taken"])
def test_clip4clip_takes_these_of_a_whole_video(case):
    count, fps, most, position, expected = case
    config = FramesConfig(num_frames=most, sampling=("head", "tail", "clip4clip")[position])
    times = sample_times(0.0, count / fps, config, duration=count / fps, fps=fps)
    assert [int(time * fps) for time in times] == expected


def test_clip2video_takes_these_of_a_folder():
    """Of a folder with fewer frames than feature_framerate, the original takes none; here it is the first."""
    for count, rate, most, expected in CLIP2VIDEO["test"]:
        assert listed_frames(count, num_frames=most, feature_framerate=rate) == (expected or [0])


def test_clip2video_moves_frames_in_training():
    for count, rate, most, expected in CLIP2VIDEO["train"]:
        rng = Recorded(count)
        assert listed_frames(count, num_frames=most, feature_framerate=rate, rng=rng) == expected
        assert listed_frames(count, num_frames=most, feature_framerate=rate) != expected
    near = listed_frames(30, num_frames=6, rng=np.random.default_rng(0))
    assert near == listed_frames(30, num_frames=6)  # five apart


def test_frames_of_a_real_video_are_those_with_these_numbers(tmp_path):
    """At 29.97 frames per second, CLIP4Clip's seconds have 29 frames; every frame here shows its own number."""
    numbers = (np.arange(90) * 2)[:, None, None, None].repeat(16, 1).repeat(16, 2).repeat(3, 3).astype(np.uint8)
    write_video(tmp_path / "v.mp4", list(numbers), fps=Fraction(30000, 1001))
    assert timed(tmp_path / "v.mp4").fps == pytest.approx(29.97, abs=1e-3)
    config = FramesConfig(num_frames=12, size=16, sampling="clip4clip")
    (frames,) = read_clips(open_videos(tmp_path), "v", [(0.0, 3.003)], config)
    assert (frames.float().mean(dim=(1, 2, 3)) / 2).tolist() == pytest.approx([0, 29, 58, 87], abs=1)


def test_a_video_without_frame_rate_is_named():
    with pytest.raises(ValueError, match="frames.sampling clip4clip needs the video's frame rate, which it does not"):
        sample_times(0.0, 3.0, FramesConfig(sampling="clip4clip"), duration=3.0, fps=0.0)


def test_the_first_and_the_last_are_among_those_spread():
    assert spread(range(18), 12) == [0, 1, 3, 4, 6, 7, 9, 10, 12, 13, 15, 17]
    assert spread([4, 5], 3) == [4, 5]
    assert spread([4, 5], 1) == [4]


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (
            {"sampling": "middle"},
            "frames.sampling must be one of uniform, head, tail, clip4clip, clip2video, got 'middle'",
        ),
        ({"feature_framerate": 0}, "frames.feature_framerate must be at least 1, got 0"),
        ({"num_frames": 0}, "frames.num_frames and frames.size must be at least 1, got 0 and 224"),
    ],
)
def test_wrong_settings_are_named(settings, message):
    with pytest.raises(ValueError, match=message):
        FramesConfig(**settings)


def test_two_files_of_one_name_are_two_videos(tmp_path):
    for name in ("a.mp4", "a.MKV", "b.mp4"):
        (tmp_path / name).touch()
    assert open_videos(tmp_path).ids() == ["a.MKV", "a.mp4", "b"]


def test_a_clip_without_length_is_refused():
    with pytest.raises(ValueError, match="a clip must end after it starts, got 3 to 3 s"):
        sample_times(3.0, 3.0, FramesConfig(), duration=9.0, fps=25.0)
