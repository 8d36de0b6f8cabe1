"""Decoding follows ffmpeg: by timestamp and upright; a video shorter than its stated duration is an error."""

import struct
import tracemalloc
from fractions import Fraction

import av
import numpy as np
import pytest
from PIL import Image

from mmpt_plugin.video import decode
from mmpt_plugin.video.decode import VideoError, probe, read_frames, read_seconds, read_squares
from mmpt_plugin.video.write import write_video


def grey(level: int, height: int = 32, width: int = 32) -> np.ndarray:
    return np.full((height, width, 3), level, dtype=np.uint8)


def levels(path, *, fps: int, size: int = 16) -> list[int]:
    """The brightness of each frame, in tens: what `grey(10 * n)` was drawn as."""
    return [round(float(frame.mean()) / 10) for second in read_seconds(path, fps=fps, size=size) for frame in second]


def mux(path, frames, *, times=None, rate=10, codec="libx264", silence=0, shift=0.0, **options):
    """A file that `write_video` would not make: any codec, container, times in seconds, sound that lasts longer."""
    with av.open(str(path), "w", container_options=options) as container:
        stream = container.add_stream(codec, rate=rate)
        stream.height, stream.width = frames[0].shape[:2]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 1000)
        if codec == "libx264":
            stream.options = {"bf": "0", "g": "5", "sc_threshold": "0"}  # a key frame every fifth, no others
        sound = container.add_stream("aac", rate=8000, layout="mono") if silence else None
        for i, frame in enumerate(frames):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts = round(1000 * (times[i] if times else i / rate + shift))
            picture.time_base = Fraction(1, 1000)
            container.mux(stream.encode(picture))
        container.mux(stream.encode())
        for i in range(0, 8000 * silence, 1024):
            noise = (np.random.default_rng(i).standard_normal((1, 1024)) * 0.1).astype(np.float32)
            samples = av.AudioFrame.from_ndarray(noise, format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 8000, i
            container.mux(sound.encode(samples))
        if sound is not None:
            container.mux(sound.encode())
    return path


def rotate(path, cosine, sine):
    """Players turn the pictures of a track with this matrix in its header, as a phone writes it."""
    upright = struct.pack(">9i", 1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30)
    turned = struct.pack(">9i", cosine << 16, sine << 16, 0, -sine << 16, cosine << 16, 0, 0, 0, 1 << 30)
    content = path.read_bytes()
    place = content.index(upright, content.index(b"tkhd"))
    path.write_bytes(content[:place] + turned + content[place + len(turned) :])


def test_frames_come_back_by_seconds_and_the_last_second_ends_black(tmp_path):
    write_video(tmp_path / "v.mp4", [grey(10 * (i + 1)) for i in range(25)], fps=10)
    seconds = list(read_seconds(tmp_path / "v.mp4", fps=10, size=16))
    assert [second.shape for second in seconds] == [(10, 16, 16, 3)] * 3
    assert levels(tmp_path / "v.mp4", fps=10) == [*range(1, 26), 0, 0, 0, 0, 0]


def test_equal_frames_give_equal_files_and_nothing_beside(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (12, 48, 64, 3), dtype=np.uint8)
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / name, frames, fps=10)
    assert (tmp_path / "a.mp4").read_bytes() == (tmp_path / "b.mp4").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a.mp4", "b.mp4"]


def drawing_that_fails():
    yield grey(10)
    raise VideoError("the drawing failed")


@pytest.mark.parametrize(
    ("frames", "message"),
    [
        ([], "no frames for .*v.mp4"),
        ([grey(10, height=33)], "v.mp4: 32x33 frames; both sides must be even"),
        (drawing_that_fails(), "the drawing failed"),
    ],
)
def test_a_video_that_fails_to_be_written_leaves_the_old_one(tmp_path, frames, message):
    (tmp_path / "v.mp4").write_bytes(b"old")
    with pytest.raises(VideoError, match=message):
        write_video(tmp_path / "v.mp4", frames, fps=10)
    assert (tmp_path / "v.mp4").read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["v.mp4"]


def test_twice_the_rate_shows_each_frame_twice_and_half_of_it_every_other(tmp_path):
    write_video(tmp_path / "v.mp4", [grey(10 * (i + 1)) for i in range(10)], fps=10)
    assert levels(tmp_path / "v.mp4", fps=20) == [n for n in range(1, 11) for _ in range(2)]
    assert levels(tmp_path / "v.mp4", fps=5) == [1, 3, 5, 7, 9]


def test_time_stamps_decide_not_the_number_of_frames(tmp_path):
    """Frames shown from 0, 0.5, 1 and 3 s, at two frames per second."""
    path = mux(tmp_path / "v.mkv", [grey(50), grey(100), grey(150), grey(200)], times=[0, 0.5, 1, 3], rate=2)
    assert levels(path, fps=2)[:7] == [5, 10, 15, 15, 15, 15, 20]


def test_a_late_start_is_not_shown(tmp_path):
    """A file whose only stream starts at 2.15 s starts there; counted from 0, frames 2, 4, ... would be shown."""
    path = mux(tmp_path / "v.ts", [grey(10 * (i + 1)) for i in range(10)], shift=0.75)
    assert levels(path, fps=5) == [1, 3, 5, 7, 9]
    assert [round(float(f.mean()) / 10) for f in read_frames(path, [0.0, 0.52], height=16)] == [1, 6]


@pytest.mark.parametrize(("height", "width"), [(64, 160), (160, 64)])
def test_the_shorter_side_is_scaled_and_the_centre_is_cropped(tmp_path, height, width):
    """The long side's outer quarters are red and blue, the middle is green."""
    picture = np.zeros((height, width, 3), dtype=np.uint8)
    long = picture if height > width else picture.transpose(1, 0, 2)
    long[:40, :, 0], long[40:120, :, 1], long[120:, :, 2] = 255, 255, 255
    write_video(tmp_path / "v.mp4", [picture] * 10, fps=10)
    (second,) = read_seconds(tmp_path / "v.mp4", fps=2, size=32)
    (square,) = read_squares(tmp_path / "v.mp4", [0.5], size=32)
    for frame in (second[0], square):
        assert frame.shape == (32, 32, 3)
        red, green, blue = frame.reshape(-1, 3).mean(axis=0)
        assert green > 200
        assert red < 20
        assert blue < 20


@pytest.mark.parametrize(
    ("matrix", "white"),
    [((1, 0), "left"), ((0, 1), "top"), ((-1, 0), "right"), ((0, -1), "bottom")],
    ids=["upright", "clockwise", "upside down", "counterclockwise"],
)
def test_a_phone_s_video_is_turned_upright(tmp_path, matrix, white):
    """White on the left, turned clockwise, is white on top."""
    picture = grey(0, height=32, width=64)
    picture[:, :32] = 255
    write_video(tmp_path / "v.mp4", [picture] * 10, fps=10)
    rotate(tmp_path / "v.mp4", *matrix)
    (second,) = read_seconds(tmp_path / "v.mp4", fps=2, size=32)
    (square,) = read_squares(tmp_path / "v.mp4", [0.5], size=32)
    (thumbnail,) = read_frames(tmp_path / "v.mp4", [0.5], height=64)
    assert thumbnail.shape == ((64, 128, 3) if matrix[0] else (64, 32, 3))
    for frame in (second[0], square, thumbnail):
        height, width = frame.shape[:2]
        sides = {
            "left": frame[:, : width // 2 - 8],
            "right": frame[:, width // 2 + 8 :],
            "top": frame[: height // 2 - 8],
            "bottom": frame[height // 2 + 8 :],
        }
        assert sides.pop(white).mean() > 240
        assert min(side.mean() for side in sides.values()) < 15


def test_odd_sizes_are_read(tmp_path):
    path = mux(tmp_path / "v.avi", [grey(100, height=33, width=47)] * 10, codec="mpeg4")
    assert levels(path, fps=2) == [10, 10]
    assert (probe(path).width, probe(path).height) == (47, 33)


def test_what_the_container_says_is_told_without_decoding(tmp_path):
    write_video(tmp_path / "v.mp4", [grey(100, height=32, width=48)] * 25, fps=10)
    info = probe(tmp_path / "v.mp4")
    assert (info.duration, info.fps, info.width, info.height) == (2.5, 10, 48, 32)


def test_sound_that_outlasts_the_picture_is_no_damage(tmp_path):
    path = mux(tmp_path / "v.mkv", [grey(100)] * 20, silence=6)
    assert probe(path).duration > 5
    assert len(list(read_seconds(path, fps=2, size=16))) == 2


@pytest.mark.parametrize(("name", "silence"), [("v.mkv", 0), ("v.mkv", 12), ("v.mp4", 0)])
def test_a_file_that_is_cut_short_gives_its_seconds_and_then_raises(tmp_path, name, silence):
    rng = np.random.default_rng(0)
    frames = list(rng.integers(0, 256, (120, 32, 32, 3), dtype=np.uint8))
    options = {"movflags": "faststart"} if name.endswith("mp4") else {}
    path = mux(tmp_path / name, frames, silence=silence, **options)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    seconds = []
    with pytest.raises(VideoError, match=rf"{name} is truncated: it ends after \d+\.\d s of 12\.\d s"):
        seconds += read_seconds(path, fps=2, size=16)
    assert next(read_seconds(path, fps=2, size=16)).shape == (2, 16, 16, 3)


def broken_file(folder, kind):
    path = folder / "broken.mp4"
    if kind == "folder":
        path.mkdir()
    elif kind.startswith("without"):
        write_video(path, [grey(100)] * 10, fps=10)
        content = path.read_bytes()
        path.write_bytes(content[: content.index(b"moov" if kind == "without its index" else b"stbl")])
    elif kind == "sound only":
        with av.open(str(path), "w") as container:
            sound = container.add_stream("aac", rate=8000, layout="mono")
            samples = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            samples.sample_rate, samples.pts = 8000, 0
            container.mux(sound.encode(samples))
            container.mux(sound.encode())
    elif kind != "missing":
        path.write_bytes({"empty": b"", "text": b"not a video\n" * 50}[kind])
    return path


@pytest.mark.parametrize(
    ("kind", "reason"),
    [
        ("missing", "no such file"),
        ("empty", "can't be decoded"),
        ("text", "can't be decoded: Invalid data"),
        ("without its index", "can't be decoded: Invalid data"),
        ("without half its index", "can't be decoded: its index is damaged"),
        ("folder", "is a folder"),
        ("sound only", "has no video stream"),
    ],
)
def test_a_broken_file_is_one_line_that_names_it(tmp_path, kind, reason):
    path = broken_file(tmp_path, kind)
    for use in (
        probe,
        lambda p: list(read_seconds(p, fps=2, size=16)),
        lambda p: read_frames(p, [0.0], height=16),
        lambda p: list(read_squares(p, [0.0], size=16)),
    ):
        with pytest.raises(VideoError, match=rf"broken\.mp4 .*{reason}") as error:
            use(path)
        assert "\n" not in str(error.value)


def test_frames_at_times_are_those_shown_then(tmp_path):
    """Frames of half a second each, so 1.2 s shows the third; after the end the last stays."""
    path = tmp_path / "v.mp4"
    write_video(path, [grey(10 * (i + 1), height=32, width=64) for i in range(20)], fps=2)
    frames = read_frames(path, [1.2, 0.0, 7.5, 99.0, -1.0], height=16)
    assert [frame.shape for frame in frames] == [(16, 32, 3)] * 5
    assert [round(float(frame.mean()) / 10) for frame in frames] == [3, 1, 16, 20, 1]


@pytest.fixture
def decoded_frames(monkeypatch):
    """The time stamp of every frame that is decoded after a seek, in order."""
    seen = []

    def spied(container, stream, wanted, decoded_from=decode.decoded_from):
        for frame in decoded_from(container, stream, wanted):
            seen.append(float(frame.pts * stream.time_base))
            yield frame

    monkeypatch.setattr(decode, "decoded_from", spied)
    return seen


@pytest.mark.parametrize("name", ["v.mp4", "v.mkv"])
def test_twelve_frames_of_a_long_video_decode_little_of_the_rest(tmp_path, decoded_frames, name):
    """Twelve of 600 frames, a key frame every fifth: each costs at most its five, and one to see that it is over."""
    path = mux(tmp_path / name, [grey(10 + i % 200) for i in range(600)])
    times = [2.7 + 5 * i for i in range(12)]
    frames = list(read_squares(path, times, size=16))
    assert [float(frame.mean()) for frame in frames] == pytest.approx(
        [10 + (27 + 50 * i) % 200 for i in range(12)], abs=3
    )
    assert len(decoded_frames) <= 12 * 6


def test_times_close_together_decode_no_frame_twice(tmp_path, decoded_frames):
    path = mux(tmp_path / "v.mp4", [grey(10 * (i + 1)) for i in range(20)])
    frames = list(read_squares(path, [0.55, 0.75, 0.95, 1.15], size=16))
    assert [round(float(frame.mean()) / 10) for frame in frames] == [6, 8, 10, 12]
    assert decoded_frames == pytest.approx([i / 10 for i in range(5, 13)])


def test_a_frame_that_is_still_shown_comes_once(tmp_path):
    """Frames shown from 0, 0.5, 1 and 3 s."""
    path = mux(tmp_path / "v.mkv", [grey(50), grey(100), grey(150), grey(200)], times=[0, 0.5, 1, 3], rate=2)
    frames = list(read_squares(path, [0.1, 0.6, 1.1, 2.9, 3.0, 9.0], size=16))
    assert [frame is None or round(float(frame.mean()) / 10) for frame in frames] == [5, 10, 15, True, 20, True]


def test_memory_does_not_grow_with_the_video(tmp_path):
    """Two hours and one minute, both read second by second: the same peak."""

    def peak(seconds):
        path = tmp_path / f"{seconds}.mp4"
        write_video(path, (grey(i % 200) for i in range(seconds)), fps=1)
        tracemalloc.start()
        count = sum(1 for _ in read_seconds(path, fps=2, size=16))
        _, most = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert count == seconds
        return most

    assert peak(7200) < 1.2 * peak(60)


@pytest.mark.parametrize(("width", "height"), [(86, 64), (64, 86), (94, 50), (40, 40)])
def test_sparse_frames_are_scaled_as_pillow_scales_them(tmp_path, width, height):
    """CLIP's own preprocessing: bicubic, the longer side truncated, the center by Python's rounding."""
    draw = np.random.default_rng(0)
    coarse = draw.integers(0, 256, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    picture = np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))
    write_video(tmp_path / "v.mp4", [picture] * 5, fps=5)
    ours, shown = read_squares(tmp_path / "v.mp4", [0.1, 0.5], size=32)
    (second,) = read_seconds(tmp_path / "v.mp4", fps=1, size=32, scaling="pillow")
    image = Image.fromarray(read_frames(tmp_path / "v.mp4", [0.1], height=height)[0])
    wide, high = (int(32 * side / min(width, height)) for side in (width, height))
    left, top = round((wide - 32) / 2), round((high - 32) / 2)
    box = (left, top, left + 32, top + 32)
    theirs = np.asarray(image.resize((wide, high), Image.Resampling.BICUBIC).crop(box)).astype(int)
    assert np.abs(ours - theirs).mean() < 0.8  # levels of 256, most of them a rounding
    assert np.abs(ours - theirs).max() <= 6
    assert np.array_equal(second[0], shown)
