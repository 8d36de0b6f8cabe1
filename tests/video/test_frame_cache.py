"""Cached frames: equal to the video's within JPEG's error, few shards, resumable, damage is reported."""

import pickle
from dataclasses import replace

import numpy as np
import pytest
import torch

from mmpt_plugin import registry
from mmpt_plugin.cli import main
from mmpt_plugin.video import cache_frames as module
from mmpt_plugin.video import frame_cache
from mmpt_plugin.video.cache_frames import cache_frames
from mmpt_plugin.video.frame_cache import SHARDS, FrameCache, FrameSettings, open_videos
from mmpt_plugin.video.sparse_frames import FramesConfig, read_clips
from mmpt_plugin.video.store import VideoFolder
from mmpt_plugin.video.write import write_video

SIZE = 32
SETTINGS = FrameSettings(size=SIZE, fps=10)


def scene(seed: int, number: int) -> list[np.ndarray]:
    """Smooth colours that change from frame to frame by far more than JPEG does."""
    y, x = np.mgrid[0:48, 0:64] / 64
    waves = [np.stack([np.sin(x + seed + n + c) * np.cos(y - n) for c in range(3)], axis=2) for n in range(number)]
    return [(128 + 100 * wave).astype(np.uint8) for wave in waves]


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for seed, number in enumerate((30, 15, 22)):
        write_video(folder / f"{'abc'[seed]}.mp4", scene(seed, number), fps=10)
    return folder


def counts(report):
    return report.done, report.skipped, len(report.failed)


def shards(folder):
    return sorted(folder.glob(SHARDS))


def test_cached_frames_are_those_of_the_files(videos, tmp_path):
    """At the video's own rate every time shows the same frame; PSNR is about 40 dB, 30 is asked for."""
    report = cache_frames([videos], tmp_path / "cache", settings=SETTINGS)
    assert (counts(report), report.seconds) == ((3, 0, 0), 3 + 2 + 3)
    assert [path.name for path in (tmp_path / "cache").iterdir()] == [path.name for path in shards(tmp_path / "cache")]
    cache, files = open_videos(tmp_path / "cache"), open_videos(videos)
    assert isinstance(cache, FrameCache)
    assert isinstance(files, VideoFolder)
    for name, duration in (("a", 3.0), ("b", 1.5), ("c", 2.2)):
        assert cache.duration(name) == files.duration(name) == pytest.approx(duration)
        clips = [(0.0, 9.0), (0.31, 1.23), (1.0, 1.3)]
        config = FramesConfig(num_frames=5, size=SIZE)
        both = zip(*(read_clips(source, name, clips, config) for source in (cache, files)), strict=True)
        for cached, original in both:
            assert cached.shape == original.shape
            error = (cached.float() - original.float()).square().mean()
            assert 10 * torch.log10(255**2 / error) > 30


def test_one_frame_a_second_is_that_of_its_middle_and_stands_for_all_of_it(videos, tmp_path):
    """Grey 10 n in the n-th fifth of a second: the frames shown until 0.5, 1.5 and 2.5 s; the video ends at 2.6."""
    write_video(videos / "a.mp4", [np.full((32, 32, 3), 10 * n, dtype=np.uint8) for n in range(13)], fps=5)
    cache_frames([videos / "a.mp4"], tmp_path / "cache", settings=replace(SETTINGS, fps=1))
    cache = FrameCache(tmp_path / "cache")
    frames = list(cache.frames_at("a", [0.0, 0.99, 1.0, 2.3, 2.59, 7.0], size=SIZE))
    assert [frame if frame is None else round(float(frame.mean())) for frame in frames] == [
        pytest.approx(20, abs=2), None, pytest.approx(70, abs=2), pytest.approx(120, abs=2), None, None,
    ]  # fmt: skip


def test_a_clip_has_no_frame_of_the_cache_twice(videos, tmp_path):
    """At two frames per second, 1.5 s have three; twelve are requested."""
    cache_frames([videos], tmp_path / "cache", settings=replace(SETTINGS, fps=2))
    (frames,) = read_clips(FrameCache(tmp_path / "cache"), "b", [(0.0, 1.5)], FramesConfig(num_frames=12, size=SIZE))
    assert frames.shape == (3, SIZE, SIZE, 3)


def test_many_videos_are_in_few_shards_and_only_what_changed_is_done_again(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(frame_cache, "VIDEOS_PER_SHARD", 2)
    out = tmp_path / "cache"
    cache_frames([videos], out, settings=SETTINGS)
    assert len(shards(out)) == 2
    assert counts(cache_frames([videos], out, settings=SETTINGS)) == (0, 3, 0)
    assert len(shards(out)) == 2
    write_video(videos / "b.mp4", scene(7, 40), fps=10)
    assert counts(cache_frames([videos], out, settings=SETTINGS)) == (1, 2, 0)
    assert len(shards(out)) == 3
    assert FrameCache(out).duration("b") == 4.0
    assert counts(cache_frames([videos], out, settings=SETTINGS)) == (0, 3, 0)


def test_another_video_s_frames_are_never_replaced(videos, tmp_path):
    out = tmp_path / "cache"
    cache_frames([videos], out, settings=SETTINGS)
    (tmp_path / "more").mkdir()
    write_video(tmp_path / "more" / "a.mp4", scene(7, 40), fps=10)
    report = cache_frames([tmp_path / "more"], out, settings=SETTINGS, allow_missing=True)
    assert counts(report) == (0, 0, 1)
    assert f"video 'a' in {out} was made from {videos}/a.mp4: choose another --out" in str(report)
    (videos / "a.mp4").rename(tmp_path / "a.mp4")
    assert counts(cache_frames([tmp_path / "a.mp4"], out, settings=SETTINGS)) == (0, 1, 0)


def test_two_videos_of_one_id_in_a_cache_are_named(videos, tmp_path):
    """Two runs that wrote into one folder at the same time."""
    (tmp_path / "more").mkdir()
    write_video(tmp_path / "more" / "a.mp4", scene(7, 40), fps=10)
    for folder, out in ((videos, "cache"), (tmp_path / "more", "other")):
        cache_frames([folder], tmp_path / out, settings=SETTINGS)
    (path,) = shards(tmp_path / "other")
    path.rename(tmp_path / "cache" / path.name)
    with pytest.raises(ValueError, match=rf"holds frames of two videos 'a', of .*{tmp_path}/"):
        FrameCache(tmp_path / "cache")


def test_ids_may_hold_slashes(videos, tmp_path):
    (videos / "x").mkdir()
    write_video(videos / "x" / "a.mp4", scene(7, 40), fps=10)
    cache_frames([videos], tmp_path / "cache", settings=SETTINGS)
    cache = FrameCache(tmp_path / "cache")
    assert cache.ids() == VideoFolder(videos).ids() == ["a", "b", "c", "x/a"]
    assert cache.duration("x/a") == 4.0


def test_the_command_and_its_old_spelling(videos, tmp_path, caplog, capsys):
    words = [str(videos), "--out", str(tmp_path / "cache"), "--allow-missing"]
    assert main(["cache-frames", *words, "--size", "32", "--fps", "10", "--part", "1/2"]) == 0
    assert "2 videos extracted (6 s), 0 already finished" in capsys.readouterr().out
    assert main(["extract", *words, "--encoder", "{_name: frames, size: 32, fps: 10}"]) == 0
    assert "1 videos extracted (2 s), 2 already finished" in capsys.readouterr().out
    assert "--encoder frames is deprecated: use mmpt cache-frames" in caplog.text
    assert main(["extract", *words, "--encoder", "{_name: frames, sise: 32}"]) == 2
    assert "no key 'frames.sise'" in capsys.readouterr().err


def test_frames_are_no_encoder():
    with pytest.raises(ValueError, match="no encoder 'frames'"):
        registry.encoders.build({"_name": "frames"})


def test_an_interrupted_run_keeps_what_it_did(videos, tmp_path, monkeypatch):
    done = []

    def stop(picture, *, quality, to_jpeg=frame_cache.to_jpeg):
        done.append(1)
        if len(done) > 40:  # 30 frames of a, 15 of b
            raise KeyboardInterrupt
        return to_jpeg(picture, quality=quality)

    monkeypatch.setattr(module, "to_jpeg", stop)
    with pytest.raises(KeyboardInterrupt):
        cache_frames([videos], tmp_path / "cache", settings=SETTINGS)
    monkeypatch.undo()
    assert counts(cache_frames([videos], tmp_path / "cache", settings=SETTINGS)) == (2, 1, 0)


def test_several_processes_and_videos_that_fail(videos, tmp_path):
    (videos / "bad.mp4").write_bytes(b"nothing")
    reports = [
        cache_frames([videos], tmp_path / str(n), settings=SETTINGS, num_workers=n, allow_missing=True) for n in (1, 2)
    ]
    assert [counts(report) for report in reports] == [(3, 0, 1)] * 2
    assert "bad.mp4 can't be decoded" in str(reports[1])
    one, two = FrameCache(tmp_path / "1"), FrameCache(tmp_path / "2")
    assert [one.content(name) for name in "abc"] == [two.content(name) for name in "abc"]
    assert "bad" not in one


def test_a_cache_holds_frames_of_one_setting(videos, tmp_path):
    out = tmp_path / "cache"
    cache_frames([videos], out, settings=SETTINGS)
    with pytest.raises(
        ValueError, match=r'cache holds frames with other settings, .*"quality": 90.*choose another folder'
    ):
        cache_frames([videos], out, settings=replace(SETTINGS, quality=50))
    with pytest.raises(ValueError, match=r"cache holds frames of 32 pixels, but frames.size is 224"):
        read_clips(FrameCache(out), "a", [(0.0, 1.0)], FramesConfig())


def test_a_copy_in_another_process_opens_the_files_again(videos, tmp_path):
    cache_frames([videos], tmp_path / "cache", settings=SETTINGS)
    sent = pickle.dumps(FrameCache(tmp_path / "cache"))
    assert len(sent) < 1000
    (frame,) = pickle.loads(sent).frames_at("a", [0.0], size=SIZE)
    assert frame.shape == (SIZE, SIZE, 3)


@pytest.mark.parametrize("damage", ["cut", "turned bit", "other index"])
def test_damage_is_named(videos, tmp_path, damage):
    cache_frames([videos], tmp_path / "cache", settings=SETTINGS)
    (path,) = shards(tmp_path / "cache")
    content = bytearray(path.read_bytes())
    start_of_jpegs = content.index(b"\xff\xd8\xff")
    if damage == "turned bit":
        content[start_of_jpegs + 300] ^= 1
    elif damage == "other index":
        content = content.replace(b'[[\\"a\\", ', b'[[\\"x\\",3],[\\"a\\", ', 1)
        size = int.from_bytes(content[:8], "little") + len(b'[\\"x\\",3],')
        content[:8] = size.to_bytes(8, "little")
    path.write_bytes(content[: -100 if damage == "cut" else None])
    with pytest.raises(ValueError, match=r"frames?.*frames-00000-.*damaged"):
        list(FrameCache(tmp_path / "cache").frames_at("a", [0.0], size=SIZE))


@pytest.mark.parametrize("wrong", [{"fps": 0}, {"size": 0}, {"quality": 96}])
def test_wrong_settings_are_one_line_before_any_work(videos, tmp_path, wrong):
    with pytest.raises(ValueError, match="size and fps of cached frames must be at least 1 and quality 1 to 95"):
        cache_frames([videos], tmp_path / "cache", settings=replace(SETTINGS, **wrong))
    assert not (tmp_path / "cache").exists()
