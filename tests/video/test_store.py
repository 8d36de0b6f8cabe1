"""Which files of a folder are videos, and their ids: for extraction, frames and reports alike."""

import logging
import os

import av
import numpy as np
import pytest
from PIL import Image

from mmpt_plugin.features.extract import list_videos
from mmpt_plugin.files import read_list
from mmpt_plugin.video.decode import VideoError, probe, read_frames, read_seconds, read_squares
from mmpt_plugin.video.store import VideoFolder, find_videos, left_out_lines
from mmpt_plugin.video.write import write_video

CODECS = {"mpg": "mpeg1video", "wmv": "wmv2", "3gp": "mpeg4", "3g2": "mpeg4", "m4v": "mpeg4", "avi": "mpeg4"}


def grey(level: int) -> np.ndarray:
    return np.full((64, 64, 3), level, dtype=np.uint8)


def encode(path, codec="mpeg4", *, container=None, number=30):
    """A second of video in any container."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w", format=container) as file:
        stream = file.add_stream(codec, rate=30)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for i in range(number):
            file.mux(stream.encode(av.VideoFrame.from_ndarray(grey(2 * i), format="rgb24")))
        file.mux(stream.encode())
    return path


def sound_with_cover(path, picture):
    """An .mp3 with a picture in its ID3 tag, as music has it."""
    with av.open(str(path), "w") as file:
        stream = file.add_stream("mp3", rate=44100)
        for i in range(20):
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1152), np.int16), format="s16p", layout="mono")
            samples.sample_rate, samples.pts = 44100, i * 1152
            file.mux(stream.encode(samples))
        file.mux(stream.encode())
    sound = path.read_bytes()
    cover = b"\0image/png\0\3\0" + picture.read_bytes()
    frame = b"APIC" + len(cover).to_bytes(4, "big") + b"\0\0" + cover
    size = bytes(len(frame) >> shift & 127 for shift in (21, 14, 7, 0))
    path.write_bytes(b"ID3\3\0\0" + size + frame + sound[sound.index(b"\xff\xfb") :])


@pytest.fixture
def folder(tmp_path):
    made = tmp_path / "videos"
    for suffix, codec in CODECS.items():
        encode(made / f"of_{suffix}.{suffix}", codec)
    encode(made / "of_mts.mts", "libx264", container="mpegts")
    encode(made / "upper.MPG", "mpeg1video")
    encode(made / "without", "mpeg1video", container="mpeg")
    encode(made / "ends.in.a.dot.", "mpeg1video", container="mpeg")
    encode(made / "odd.suffix", "mpeg4", container="avi")
    return made


def test_every_container_that_can_be_decoded_is_a_video(folder):
    found = find_videos(folder)
    assert sorted(found.ids) == sorted(
        [*(f"of_{suffix}" for suffix in (*CODECS, "mts")), "ends.in.a.dot", "odd", "upper", "without"]
    )
    assert found.left_out == {}
    for path in found:
        assert len(list(read_seconds(path, fps=2, size=16))) == 1, path


def others(folder):
    """Files that ffmpeg decodes although they are not videos, and others."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    for suffix in ("png", "jpg", "gif", "bmp", "webp", "tiff", "avif"):
        picture.save(folder / f"picture.{suffix}")
    (folder / "about.txt").write_text("hello world\n" * 50)
    (folder / "notes.nfo").write_text("hello\n" * 20)
    (folder / "README").write_text("# Videos\n" * 20)
    (folder / "list.csv").write_text("a,b\n1,2\n" * 50)
    (folder / "captions.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nhi\n")
    (folder / "play.m3u8").write_text("#EXTM3U\n#EXTINF:1,\nof_mpg.mpg\n#EXT-X-ENDLIST\n")
    (folder / "index.ts").write_text("export const a = 1;\n" * 100)
    (folder / "noise.bin").write_bytes(np.random.default_rng(0).bytes(100_000))
    (folder / "zero").write_bytes(bytes(100_000))
    (folder / "empty").touch()
    np.save(folder / "features.npy", np.zeros((3, 4), dtype=np.float16))
    sound_with_cover(folder / "music.mp3", folder / "picture.png")
    encode(folder / "raw.h264", "libx264")


def test_what_is_not_a_video_is_left_out_with_its_reason(folder, caplog):
    before = set(find_videos(folder))
    others(folder)
    number = len(list(folder.iterdir())) - len(before)
    with caplog.at_level(logging.INFO):
        found = find_videos(folder)
    assert set(found) == before
    assert len(found.left_out) == number
    reasons = {path.rsplit("/", 1)[1]: reason for path, reason in found.left_out.items()}
    assert all(name in reason and "\n" not in reason for name, reason in reasons.items())
    assert "is a text file" in reasons["about.txt"]
    assert "only a cover picture" in reasons["music.mp3"]
    assert "its frames have no timestamps" in reasons["raw.h264"]
    for suffix in ("png", "jpg", "gif", "bmp", "webp", "tiff", "avif"):
        assert "is an image, not a video" in reasons[f"picture.{suffix}"]
    assert f"{len(before)} videos in {folder}; {number} left out" in caplog.text


def test_frames_without_times_are_named_wherever_they_are_read(folder):
    others(folder)
    for read in (
        lambda path: read_frames(path, [0.5], height=16),
        lambda path: list(read_squares(path, [0.0], size=16)),
    ):
        with pytest.raises(VideoError, match=r"raw\.h264 can't be (read: its frames have no timestamps|decoded)"):
            read(folder / "raw.h264")


@pytest.mark.parametrize("name", ["about.txt", "picture.png", "music.mp3", "raw.h264"])
def test_what_is_not_a_video_fails_where_it_is_asked_for(folder, name):
    others(folder)
    with pytest.raises(VideoError, match=rf"{name} (is a|has no video|can't be read: its frames have no timestamps)"):
        list(read_seconds(folder / name, fps=2, size=16))


def test_a_file_named_as_a_video_is_one_and_may_fail(folder):
    (folder / "bad.mpg").write_bytes(b"nothing")
    (folder / "gone.mp4").symlink_to(folder / "nowhere.mp4")
    assert {"bad", "gone"} <= set(find_videos(folder).ids)


def test_what_may_not_be_read_is_not_called_something_else(folder, monkeypatch):
    """It fails later, as every video that can't be read."""

    def refuse(path):
        raise VideoError(f"{path} can't be decoded: Permission denied") from PermissionError()

    monkeypatch.setattr("mmpt_plugin.video.store.check_moving", refuse)
    found = find_videos(folder)
    assert {"without", "odd"} <= set(found.ids)
    assert issubclass(av.error.PermissionError, PermissionError)


def test_a_pipe_is_not_waited_for(folder):
    os.mkfifo(folder / "pipe")
    assert find_videos(folder).left_out == {str(folder / "pipe"): f"{folder}/pipe is not a regular file"}


def test_an_animation_is_a_video(tmp_path):
    pictures = [Image.fromarray(grey(60 * i)) for i in range(4)]
    pictures[0].save(tmp_path / "moving.gif", save_all=True, append_images=pictures[1:], duration=250)
    assert find_videos(tmp_path).ids == ("moving",)
    assert len(list(read_seconds(tmp_path / "moving.gif", fps=2, size=16))) == 1


def test_a_folder_is_searched_recursively_and_only_names_that_clash_get_their_path(tmp_path):
    for place in ("run/a/clip.mp4", "run/b/clip.MP4", "walk/c.d/clip", "run/a/other.mp4", "own.mp4", "own.x.mp4"):
        encode(tmp_path / place, container="mp4")
    encode(tmp_path / ".hidden" / "x.mp4")
    encode(tmp_path / "run" / ".x.mp4")
    (tmp_path / "run" / "again").symlink_to(tmp_path)  # leads back to itself
    found = dict(find_videos(tmp_path).items())
    assert {name: path.relative_to(tmp_path).as_posix() for name, path in found.items()} == {
        "own": "own.mp4",
        "own.x": "own.x.mp4",
        "run/a/clip": "run/a/clip.mp4",
        "run/b/clip": "run/b/clip.MP4",
        "walk/c.d/clip": "walk/c.d/clip",
        "other": "run/a/other.mp4",
    }
    videos = VideoFolder(tmp_path)
    assert "run/a/clip" in videos
    assert "run/a/clip.mp4" in videos
    assert "clip" not in videos
    with pytest.raises(ValueError, match=rf"no video 'clip' in {tmp_path}"):
        videos.file("clip")
    assert videos.duration("walk/c.d/clip") == pytest.approx(1)


def test_a_linked_folder_is_searched(tmp_path):
    encode(tmp_path / "store" / "a.mp4")
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "linked").symlink_to(tmp_path / "store")
    assert find_videos(tmp_path / "videos").ids == ("a",)


def test_the_output_folder_is_not_searched(tmp_path):
    encode(tmp_path / "a.mp4")
    encode(tmp_path / "out" / "b.mp4")
    assert list_videos([tmp_path], out=tmp_path / "out").ids == ("a",)
    assert list_videos([tmp_path / "out"], out=tmp_path / "out").ids == ("b",)


def test_a_part_of_a_list_keeps_its_ids(tmp_path):
    for place in ("a/x.mp4", "b/x.mp4", "c.mp4"):
        encode(tmp_path / place)
    listed = list_videos([tmp_path])
    assert listed.ids == ("a/x", "b/x", "c")
    assert (listed[::2].ids, [path.name for path in listed[1:2]]) == (("a/x", "c"), ["x.mp4"])


def test_files_of_one_name_get_ids_below_their_common_folder(tmp_path):
    for place in ("train/a/x.mp4", "train/b/x.mp4", "train/b/y.mp4"):
        encode(tmp_path / place)
    files = [tmp_path / "train/a/x.mp4", tmp_path / "train/a/../b/x.mp4", tmp_path / "train/b/y.mp4"]
    assert list_videos(files).ids == ("a/x", "b/x", "y")
    assert list_videos([tmp_path / "train" / "a", tmp_path / "train" / "b"]).ids == ("a/x", "b/x", "y")


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_of_files_as_any_editor_writes_it(tmp_path, monkeypatch, end):
    """Blank lines, a mark at the start, a file twice, one relative to the list, one that is not there."""
    for place in ("lists/near.mp4", "here.mp4", "with blank.mp4"):
        encode(tmp_path / place)
    monkeypatch.chdir(tmp_path)
    lines = ["\ufeffhere.mp4", "", "near.mp4", "./here.mp4", "  ", str(tmp_path / "with blank.mp4"), "gone.mp4"]
    (tmp_path / "lists" / "l.TXT").write_bytes(end.join(lines).encode())
    listed = list_videos([tmp_path / "lists" / "l.TXT"])
    assert listed.ids == ("here", "near", "with blank", "gone")
    assert listed[1].resolve() == tmp_path / "lists" / "near.mp4"
    assert not listed[3].exists()


def test_a_list_that_is_not_utf_8_is_named(tmp_path):
    (tmp_path / "l.txt").write_bytes("ü.mp4".encode("latin-1"))
    with pytest.raises(ValueError, match=r"l\.txt is not in UTF-8: .* at byte 0"):
        read_list(tmp_path / "l.txt")


def test_a_name_with_a_colon_is_no_protocol(tmp_path, monkeypatch):
    write_video(tmp_path / "12:30.mp4", [grey(100)] * 4, fps=2)
    monkeypatch.chdir(tmp_path)
    (path,) = list_videos([tmp_path])
    assert probe(path.relative_to(tmp_path)).duration == pytest.approx(2)


def test_a_folder_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=rf"no folder of videos at {tmp_path}/gone"):
        VideoFolder(tmp_path / "gone")


def test_files_that_are_known_not_to_be_videos_are_one_line():
    left_out = {f"v/{number}.vtt": "a .vtt file" for number in range(12)} | {
        "v/a.json": "",
        "v/b.jpg": "v/b.jpg is an image",
    }
    assert left_out_lines(left_out) == ["left out: v/b.jpg is an image", "left out: 1 .json, 12 .vtt"]
