"""Extraction: one row per second, resumable, and every video that fails is reported."""

import json
import multiprocessing
import os
import signal
import threading
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin import registry
from mmpt_plugin.features.extract import encode, encode_timed, extract, list_videos
from mmpt_plugin.features.files import read_features, write_features
from mmpt_plugin.video import decode as video_module
from mmpt_plugin.video.decode import VideoError
from mmpt_plugin.video.write import write_video

S3D = {"_name": "s3d", "size": 32, "fps": 4}
COLOUR = {"_name": "mean_colour"}
FORK = multiprocessing.get_context("fork")


@dataclass(kw_only=True)
class MeanColourConfig:
    scale: float = 1.0


class MeanColour:
    """The mean of each colour in tenths of its range; a pure blue video gives infinity."""

    fps, size, feature_dim = 2, 16, 3

    def __init__(self, config: MeanColourConfig) -> None:
        self.scale = config.scale
        self.fingerprint = json.dumps({"scale": config.scale})

    def __call__(self, frames: torch.Tensor) -> torch.Tensor:
        rows = frames.float().mean(dim=(1, 2, 3)) / 25.5 * self.scale
        return torch.where((rows[:, 2:] > 9) & (rows[:, :1] < 1), torch.inf, rows)


@pytest.fixture(autouse=True)
def mean_colour(monkeypatch):
    """Registered for the test alone, and in this process alone."""
    registry.encoders["s3d"]  # import it before its entry is copied, or it would be gone after the test
    monkeypatch.setattr(registry.encoders, "_entries", dict(registry.encoders._entries))
    registry.register_encoder("mean_colour", dataclass=MeanColourConfig)(MeanColour)


def video(path, *colours):
    """A second of each colour."""
    frames = [np.broadcast_to(np.array(colour, dtype=np.uint8), (32, 32, 3)) for colour in colours]
    write_video(path, [frame for frame in frames for _ in range(4)], fps=4)


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    video(folder / "a.mp4", (255, 255, 255), (0, 0, 0), (128, 128, 128))
    video(folder / "b.mp4", (255, 255, 255))
    (folder / "about.txt").write_text("not a video")
    return folder


def counts(report):
    return report.done, report.skipped, len(report.failed)


def test_a_row_a_second_in_half_precision(videos, tmp_path):
    report = extract([videos], tmp_path / "out", encoder=COLOUR)
    assert (counts(report), report.seconds) == ((2, 0, 0), 4)
    features = read_features(tmp_path / "out" / "a.npy")
    assert features.dtype == np.float16
    np.testing.assert_allclose(features, [[10] * 3, [0] * 3, [5] * 3], atol=0.1)
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == ["a.json", "a.npy", "b.json", "b.npy"]


def test_more_seconds_than_a_batch_keep_their_order(tmp_path):
    shades = [(n * 7, n * 7, n * 7) for n in range(35)]
    video(tmp_path / "long.mp4", *shades)
    extract([tmp_path / "long.mp4"], tmp_path / "out", encoder=COLOUR)
    features = read_features(tmp_path / "out" / "long.npy")
    np.testing.assert_allclose(features[:, 0] * 25.5, np.arange(35) * 7, atol=3)


def test_what_is_finished_is_skipped_and_what_changed_is_done_again(videos, tmp_path):
    out = tmp_path / "out"
    extract([videos], out, encoder=COLOUR)
    assert counts(extract([videos], out, encoder=COLOUR)) == (0, 2, 0)
    video(videos / "b.mp4", (0, 0, 0), (0, 0, 0))
    assert counts(extract([videos], out, encoder=COLOUR)) == (1, 1, 0)
    assert read_features(out / "b.npy").shape == (2, 3)
    assert counts(extract([videos], out, encoder=COLOUR | {"scale": 2.0})) == (2, 0, 0)
    np.testing.assert_allclose(read_features(out / "a.npy")[0], [20] * 3, atol=0.2)


@pytest.mark.parametrize("damage", [lambda p: p.write_bytes(p.read_bytes()[:-5]), lambda p: p.unlink()])
def test_a_damaged_output_is_made_again(videos, tmp_path, damage):
    out = tmp_path / "out"
    extract([videos], out, encoder=COLOUR)
    whole = (out / "a.npy").read_bytes()
    damage(out / "a.npy")
    assert counts(extract([videos], out, encoder=COLOUR)) == (1, 1, 0)
    assert (out / "a.npy").read_bytes() == whole


def test_a_file_that_moved_is_finished(videos, tmp_path):
    extract([videos], tmp_path / "out", encoder=COLOUR)
    (videos / "a.mp4").rename(tmp_path / "a.mp4")
    assert counts(extract([tmp_path / "a.mp4"], tmp_path / "out", encoder=COLOUR)) == (0, 1, 0)


def test_another_video_s_features_are_never_replaced(videos, tmp_path):
    """A second run into one folder, with another file of the same name."""
    out = tmp_path / "out"
    extract([videos], out, encoder=COLOUR)
    content = (out / "a.npy").read_bytes()
    (tmp_path / "more").mkdir()
    video(tmp_path / "more" / "a.mp4", (0, 0, 0))
    video(tmp_path / "more" / "c.mp4", (0, 0, 0))
    report = extract([tmp_path / "more"], out, encoder=COLOUR, allow_missing=True)
    assert counts(report) == (1, 0, 1)
    (reason,) = report.failed.values()
    assert reason == (
        f"{tmp_path}/more/a.mp4: {out}/a.npy was made from {videos}/a.mp4: choose another --out, or extract both in "
        "one run from their common folder, or delete it"
    )
    assert (out / "a.npy").read_bytes() == content
    assert counts(extract([videos], out, encoder=COLOUR)) == (0, 2, 0)


def test_files_of_one_name_in_one_run_are_both_extracted(videos, tmp_path):
    for name, shade in (("x", 0), ("y", 255)):
        (videos / name).mkdir()
        video(videos / name / "clip.mp4", (shade, shade, shade))
    out = videos / "features"
    assert counts(extract([videos], out, encoder=COLOUR, num_workers=1)) == (4, 0, 0)
    assert float(read_features(out / "x" / "clip.npy").mean()) == pytest.approx(0, abs=0.1)
    assert float(read_features(out / "y" / "clip.npy").mean()) == pytest.approx(10, abs=0.1)
    assert counts(extract([videos], out, encoder=COLOUR)) == (0, 4, 0)
    parts = [list_videos([videos], out=out)[i::2] for i in range(2)]
    again = [extract(part, tmp_path / "parts", encoder=COLOUR) for part in parts]
    assert [counts(report) for report in again] == [(2, 0, 0)] * 2
    assert (tmp_path / "parts" / "y" / "clip.npy").is_file()


@pytest.mark.parametrize("record", [None, "{", "[]", '{"encoder": "other tool"}'])
def test_features_from_elsewhere_are_never_replaced(videos, tmp_path, record):
    out = tmp_path / "out"
    out.mkdir()
    write_features(out / "a.npy", np.ones((2, 3), dtype=np.float16))
    if record is not None:
        (out / "a.json").write_text(record)
    message = r"1 of 2 videos failed, 1 videos .*\nfailed: .*a\.mp4: .*a\.npy already exists, without a record"
    with pytest.raises(ValueError, match=message):
        extract([videos], out, encoder=COLOUR)
    assert read_features(out / "a.npy").shape == (2, 3)


def test_another_json_file_is_never_replaced(videos):
    """Features next to the videos, where data sets keep what they know about each."""
    (videos / "a.json").write_text('{"title": "How to chop"}')
    report = extract([videos], videos, encoder=COLOUR, allow_missing=True)
    assert counts(report) == (1, 0, 1)
    assert f"{videos}/a.json is not a record of features: choose another --out" in str(report)
    assert (videos / "a.json").read_text() == '{"title": "How to chop"}'


def test_records_without_a_source_count_if_all_else_is_equal(videos, tmp_path):
    """As older versions wrote them."""
    out = tmp_path / "out"
    extract([videos], out, encoder=COLOUR)
    record = json.loads((out / "a.json").read_text())
    assert record.pop("source") == str(videos / "a.mp4")
    (out / "a.json").write_text(json.dumps(record))
    assert counts(extract([videos], out, encoder=COLOUR)) == (0, 2, 0)
    (out / "a.json").write_text(json.dumps(record | {"bytes": 1}))
    assert counts(extract([videos], out, encoder=COLOUR, allow_missing=True)) == (0, 1, 1)


@pytest.mark.parametrize("step", range(6))
@pytest.mark.parametrize("changed", [False, True])
def test_a_run_that_is_killed_at_any_step_is_completed_by_the_next(videos, tmp_path, monkeypatch, step, changed):
    """Each change of the output folder in turn is the last one: no clean-up runs, as after SIGKILL."""
    out = tmp_path / "out"
    if changed:
        extract([videos / "b.mp4"], out, encoder=COLOUR)
        video(videos / "b.mp4", (0, 0, 0), (255, 255, 255))
    child = FORK.Process(target=killed_after, args=(videos / "b.mp4", out, step))
    child.start()
    child.join()
    assert child.exitcode in (9, 0)
    assert counts(extract([videos / "b.mp4"], out, encoder=COLOUR)) in [(1, 0, 0), (0, 1, 0)]
    assert read_features(out / "b.npy").shape == ((2, 3) if changed else (1, 3))
    assert json.loads((out / "b.json").read_text())["bytes"] == (videos / "b.mp4").stat().st_size


def killed_after(path, out, steps):
    """Runs in a separate process, which is killed after this many file system calls."""
    left = [steps]

    def counted(call):
        def limited(*arguments, **options):
            if left[0] == 0:
                os._exit(9)
            left[0] -= 1
            return call(*arguments, **options)

        return limited

    for name in ("unlink", "replace", "touch"):
        setattr(Path, name, counted(getattr(Path, name)))
    extract([path], out, encoder=COLOUR)
    os._exit(0)


@pytest.fixture
def packets_read(monkeypatch):
    """The number of frames decoded so far."""
    seen = []

    def spied(path, container, stream, decoded=video_module.decoded):
        for frame in decoded(path, container, stream):
            seen.append(frame.pts)
            yield frame

    monkeypatch.setattr(video_module, "decoded", spied)
    return seen


def test_only_the_first_seconds_are_decoded(tmp_path, packets_read):
    """2 of 30 seconds, four frames each: the filter looks one or two frames ahead."""
    video(tmp_path / "long.mp4", *[(n, n, n) for n in range(0, 240, 8)])
    extract([tmp_path / "long.mp4"], tmp_path / "out", encoder=COLOUR, max_seconds=2)
    assert read_features(tmp_path / "out" / "long.npy").shape == (2, 3)
    assert 8 <= len(packets_read) <= 12
    packets_read.clear()
    whole = encode(tmp_path / "long.mp4", MeanColour(MeanColourConfig()))
    assert len(packets_read) == 120
    first = encode(tmp_path / "long.mp4", MeanColour(MeanColourConfig()), max_seconds=2)
    np.testing.assert_array_equal(first, whole[:2])


def test_features_of_the_first_seconds_serve_no_request_for_more(videos, tmp_path):
    """`a` has three seconds, `b` one. Features of a whole video serve any limit; more seconds replace fewer only."""
    out = tmp_path / "out"

    def again(max_seconds):
        report = extract([videos], out, encoder=COLOUR, max_seconds=max_seconds)
        return counts(report)[:2], len(read_features(out / "a.npy"))

    assert again(2) == ((2, 0), 2)
    assert json.loads((out / "a.json").read_text())["max_seconds"] == 2
    assert again(2) == ((0, 2), 2)
    assert again(1) == ((0, 2), 2)
    assert again(None) == ((1, 1), 3)
    assert "max_seconds" not in json.loads((out / "a.json").read_text())
    assert again(2) == ((0, 2), 3)
    with pytest.raises(ValueError, match="max_seconds must be at least 1, got 0"):
        again(0)


def test_what_is_left_out_is_in_the_report(videos, tmp_path):
    (videos / "about.txt").write_text("not a video\n" * 50)
    for number in range(10):
        (videos / f"c{number}.text").write_text("not a video\n" * 50)
        (videos / f"c{number}.json").write_text("{}")
    report = extract([videos], tmp_path / "out", encoder=COLOUR)
    assert len(report.left_out) == 21
    first, second, *lines = str(report).split("\n")
    assert first == "2 videos extracted (4 s), 0 already finished"
    assert second == str(report.times)
    assert lines[0] == f"left out: {videos}/about.txt is a text file, not a video"
    assert lines[-2:] == ["left out: 1 more that are not videos", "left out: 10 .json"]


def test_videos_that_fail_are_named_and_the_others_are_finished(videos, tmp_path):
    (videos / "bad.mp4").write_bytes(b"nothing")
    video(videos / "blue.mp4", (0, 0, 255))
    reasons = r"\nfailed: .*bad\.mp4 can't.*\nfailed: .*blue\.mp4: .* NaN or infinity"
    with pytest.raises(ValueError, match=rf"2 of 4 videos failed, 2 videos extracted.*{reasons}"):
        extract([videos], tmp_path / "out", encoder=COLOUR)
    assert sorted(p.stem for p in (tmp_path / "out").glob("*.npy")) == ["a", "b"]

    report = extract([videos], tmp_path / "out", encoder=COLOUR, allow_missing=True)
    assert counts(report) == (0, 2, 2)
    assert "bad.mp4 can't be decoded" in report.failed[str(videos / "bad.mp4")]
    assert "2 of 4 videos failed, 0 videos extracted (0 s), 2 already finished\nfailed: " in str(report)


def test_a_file_that_is_not_there_is_named(videos, tmp_path):
    with pytest.raises(ValueError, match=r"1 of 2 videos failed, .*\nfailed: .*gone\.mp4: No such file"):
        extract([videos / "a.mp4", tmp_path / "gone.mp4"], tmp_path / "out", encoder=COLOUR)
    assert (tmp_path / "out" / "a.npy").is_file()


def test_two_videos_of_one_name_in_one_folder_keep_their_suffixes(videos, tmp_path):
    """DiDeMo has such pairs."""
    video(videos / "a.mov", (0, 0, 0))
    extract([videos], tmp_path / "out", encoder=COLOUR)
    names = {path.name for path in (tmp_path / "out").glob("*.npy")}
    assert {"a.mov.npy", "a.mp4.npy"} < names
    assert "a.npy" not in names


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"encoder": {"_name": "s3e"}}, "no encoder 's3e'. Did you mean 's3d'?"),
        ({"encoder": {"_name": "s3d", "sise": 64}}, r"no key 's3d\.sise'"),
        ({"encoder": {"_name": "s3d", "weights": "gone.pth"}, "num_workers": 2}, r"no checkpoint at gone\.pth"),
        ({"encoder": COLOUR, "num_workers": 0}, "num_workers must be at least 1, got 0"),
    ],
)
def test_wrong_settings_are_one_line_before_any_work(videos, tmp_path, settings, message):
    with pytest.raises(ValueError, match=message):
        extract([videos], tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_a_folder_without_videos_is_refused(tmp_path):
    with pytest.raises(ValueError, match=rf"no videos in {tmp_path}$"):
        extract([tmp_path], tmp_path / "out", encoder=COLOUR)
    (tmp_path / "about.txt").write_text("not a video\n" * 50)
    with pytest.raises(ValueError, match=r"no videos in .*; 1 left out, such as: .*about\.txt is a text file, not a"):
        extract([tmp_path], tmp_path / "out", encoder=COLOUR)


def test_several_processes_give_what_one_gives(videos, tmp_path, monkeypatch):
    (videos / "bad.mp4").write_bytes(b"nothing")
    monkeypatch.setattr("mmpt_plugin.video.workers.QUEUED", 1)  # the third video waits until one is done
    reports = [extract([videos], tmp_path / str(n), encoder=S3D, num_workers=n, allow_missing=True) for n in (1, 2)]
    assert [counts(report) for report in reports] == [(2, 0, 1)] * 2
    assert reports[0].failed == reports[1].failed
    for name in ("a.npy", "b.npy"):
        one, two = (read_features(tmp_path / n / name) for n in "12")
        np.testing.assert_allclose(one, two, atol=2e-3)
    assert counts(extract([videos], tmp_path / "1", encoder=S3D, num_workers=2, allow_missing=True)) == (0, 2, 1)


def test_a_process_that_dies_is_one_line(videos, tmp_path, monkeypatch):
    monkeypatch.setattr("mmpt_plugin.video.workers.WorkerContext", lambda: FORK)  # which have what is patched
    monkeypatch.setattr("mmpt_plugin.video.workers.start_worker", lambda *settings: os._exit(1))
    with pytest.raises(ValueError, match="one of 2 processes died"):
        extract([videos], tmp_path / "out", encoder=COLOUR, num_workers=2)


@pytest.mark.parametrize("num_workers", [1, 2])
def test_the_report_adds_up_the_times_of_all_videos(videos, tmp_path, num_workers):
    report = extract([videos], tmp_path / "out", encoder=S3D, num_workers=num_workers)
    assert report.times.decoding > 0
    assert report.times.encoding > 0
    assert report.times.decoding + report.times.encoding <= report.times.total
    assert str(report).split("\n")[1] == str(report.times)
    again = extract([videos], tmp_path / "out", encoder=S3D, num_workers=num_workers)
    assert "waited" not in str(again)


class Called(MeanColour):
    """A `MeanColour` that calls a function first, with the number of the call."""

    def __init__(self, call=lambda number: None):
        super().__init__(MeanColourConfig())
        self.call, self.calls = call, 0

    def __call__(self, frames):
        self.calls += 1
        self.call(self.calls)
        return super().__call__(frames)


@pytest.fixture
def long(tmp_path):
    """40 seconds: three chunks."""
    video(tmp_path / "long.mp4", *[(n * 6, n * 5, 80) for n in range(40)])
    return tmp_path / "long.mp4"


def check_nothing_is_left(path):
    """No thread of `run_ahead`, and no open file."""
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ahead")]
    assert str(path) not in {str(f.readlink()) for f in Path("/proc/self/fd").iterdir() if f.is_symlink()}


@pytest.mark.parametrize("max_seconds", [None, 2, 20])
@pytest.mark.parametrize("encoder", [S3D, COLOUR])
def test_decoding_ahead_gives_the_same_features(long, encoder, max_seconds):
    encoder = registry.encoders.build(encoder)
    rows, times = encode_timed(long, encoder, max_seconds=max_seconds, ahead=True)
    in_turns, _ = encode_timed(long, encoder, max_seconds=max_seconds, ahead=False)
    assert len(rows) == (max_seconds or 40)
    np.testing.assert_array_equal(rows, in_turns)
    assert 0 < times.encoding < times.total
    assert 0 < times.decoding < times.total
    check_nothing_is_left(long)


@pytest.mark.parametrize("ahead", [True, False])
def test_at_most_one_more_chunk_is_decoded(long, packets_read, ahead):
    """Before the first chunk is encoded, 16 s of 4 frames, and up to 16 s more; the filter looks a few frames ahead."""
    seen = []
    encode_timed(long, Called(lambda number: seen.append(len(packets_read))), max_seconds=None, ahead=ahead)
    assert len(seen) == 3
    assert 64 <= seen[0] <= (64 + 64 * ahead) + 4


def test_an_error_of_decoding_is_raised_when_its_frames_are_due(long):
    """In the second chunk; the error is the same, with its cause."""
    content = long.read_bytes()
    end = content.index(b"moov") - 4  # of the frames
    long.write_bytes(content[: end * 3 // 4] + bytes(end - end * 3 // 4) + content[end:])
    errors = []
    for ahead in (True, False):
        encoder = Called()
        with pytest.raises(VideoError, match=r"long\.mp4 can't be decoded: Invalid data") as raised:
            encode_timed(long, encoder, max_seconds=None, ahead=ahead)
        assert encoder.calls == 1
        check_nothing_is_left(long)
        errors.append((str(raised.value), type(raised.value.__cause__)))
    assert errors[0] == errors[1]
    assert errors[0][1] is not type(None)


@pytest.mark.parametrize("ahead", [True, False])
def test_an_error_of_the_encoder_ends_decoding(long, packets_read, ahead):
    def out_of_memory(number):
        if number == 2:
            raise RuntimeError("out of memory")

    with pytest.raises(RuntimeError, match="out of memory"):
        encode_timed(long, Called(out_of_memory), max_seconds=None, ahead=ahead)
    check_nothing_is_left(long)


@pytest.mark.parametrize("ahead", [True, False])
def test_ctrl_c_while_encoding_ends_decoding(long, ahead):
    with pytest.raises(KeyboardInterrupt):
        encode_timed(long, Called(lambda number: signal.raise_signal(signal.SIGINT)), max_seconds=None, ahead=ahead)
    check_nothing_is_left(long)


@pytest.mark.parametrize("ahead", [True, False])
def test_ctrl_c_while_encoding_waits_ends_decoding(long, monkeypatch, ahead):
    """It arrives with the third frame: the first chunk has 64."""
    read = []

    def interrupted(path, container, stream, decoded=video_module.decoded):
        for frame in decoded(path, container, stream):
            read.append(frame.pts)
            if len(read) == 3:
                signal.pthread_kill(threading.main_thread().ident, signal.SIGINT)
            yield frame

    monkeypatch.setattr(video_module, "decoded", interrupted)
    encoder = Called()
    with pytest.raises(KeyboardInterrupt):
        encode_timed(long, encoder, max_seconds=None, ahead=ahead)
    check_nothing_is_left(long)


def test_features_are_never_unpickled_and_their_shape_is_checked(tmp_path):
    np.save(tmp_path / "pickled.npy", np.array([{"a": 1}]), allow_pickle=True)
    np.save(tmp_path / "flat.npy", np.zeros(3, dtype=np.float16))
    np.save(tmp_path / "whole.npy", np.zeros((3, 2), dtype=np.int64))
    (tmp_path / "empty.npy").write_bytes(b"")
    for name in ("pickled", "flat", "whole", "empty", "missing"):
        with pytest.raises(ValueError, match=rf"features .*{name}\.npy"):
            read_features(tmp_path / f"{name}.npy")


def test_features_come_back_as_written(tmp_path):
    features = np.arange(6, dtype=np.float16).reshape(3, 2)
    write_features(tmp_path / "v.npy", features)
    np.testing.assert_array_equal(read_features(tmp_path / "v.npy"), features)
    assert [p.name for p in tmp_path.iterdir()] == ["v.npy"]
