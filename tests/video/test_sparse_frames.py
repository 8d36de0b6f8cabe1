"""Sparse frames: the correct times, without decoding more than necessary."""

import pytest

from mmpt_plugin.video.frame_cache import open_videos
from mmpt_plugin.video.sparse_frames import FramesConfig, frame_times


@pytest.mark.parametrize(
    ("clip", "sampling", "times"),
    [
        ((10.0, 16.0), "uniform", [11, 13, 15]),
        ((0.0, 1.5), "uniform", [0.25, 0.75, 1.25]),
        ((10.0, 16.0), "head", [10, 11, 12]),
        ((10.0, 16.0), "tail", [13, 14, 15]),
        ((10.5, 12.75), "head", [10.5, 11.5, 12.5]),
        ((10.5, 12.25), "tail", [10.5, 11.5]),
        ((3.0, 3.4), "head", [3]),
    ],
)
def test_three_frames_of_a_clip(clip, sampling, times):
    assert frame_times(*clip, num_frames=3, sampling=sampling) == pytest.approx(times)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"sampling": "middle"}, "frames.sampling must be one of uniform, head, tail, got 'middle'"),
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
        frame_times(3.0, 3.0, num_frames=3, sampling="uniform")
