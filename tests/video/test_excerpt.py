"""Excerpts of videos: their pictures and their sound are those of the seconds that were asked for."""

import av
import numpy as np
import pytest

from mmpt_plugin.video.decode import formats, probe, read_frames
from mmpt_plugin.video.write import EXCERPT_HEIGHT, write_excerpt
from tests.search.served import RATE, write


def loudness(path):
    """Of each tenth of a second of the sound."""
    with av.open(str(path)) as container:
        samples = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    tenths = samples[: len(samples) // (RATE // 10) * (RATE // 10)].reshape(-1, RATE // 10)
    return np.sqrt((tenths**2).mean(axis=1))


@pytest.mark.parametrize(("name", "codec", "sound"), [("v.avi", "mpeg4", "mp2"), ("v.mp4", "libx264", "aac")])
def test_sound_and_pictures_are_of_the_same_seconds(tmp_path, name, codec, sound):
    """The tone begins at second 5, the brightness is 20 t: an excerpt from 4.5 to 7.5."""
    video = write(tmp_path / name, codec, silent=5.0, sound=sound)
    write_excerpt(tmp_path / "e.mp4", video, 4.5, 7.5)
    assert formats(tmp_path / "e.mp4").audio == "aac"
    assert probe(tmp_path / "e.mp4").duration == pytest.approx(3, abs=0.15)
    shown = read_frames(tmp_path / "e.mp4", [0.05, 0.45, 0.55, 2.85], height=64)
    assert [frame.mean() for frame in shown] == pytest.approx([80, 80, 100, 140], abs=5)
    loud = loudness(tmp_path / "e.mp4")
    assert loud[:4].max() < 0.03
    assert loud[6:29].min() > 0.2
    assert len(loud) == pytest.approx(30, abs=1)


def test_a_large_video_is_scaled_to_even_sides_and_a_fast_one_to_30_frames_a_second(tmp_path):
    write(tmp_path / "v.avi", "mpeg4", seconds=2, fps=50, size=(1001, 725), sound=None)
    write_excerpt(tmp_path / "e.mp4", tmp_path / "v.avi", 0.0, 1.0)
    info = probe(tmp_path / "e.mp4")
    assert (info.height, info.width % 2, info.fps) == (EXCERPT_HEIGHT, 0, 25)
    assert info.width / info.height == pytest.approx(1001 / 725, rel=0.01)
    assert formats(tmp_path / "e.mp4").audio is None


def test_an_excerpt_of_a_small_video_keeps_its_size(tmp_path):
    write(tmp_path / "v.avi", "mpeg4", seconds=2, size=(47, 33), sound=None)
    write_excerpt(tmp_path / "e.mp4", tmp_path / "v.avi", 0.5, 1.5)
    info = probe(tmp_path / "e.mp4")
    assert (info.height, info.width, info.fps) == (32, 46, 10)
