"""Extraction: one row a second, resumable, and every video that fails is named."""

import json
import multiprocessing
import os
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from mmpt_plugin import registry
from mmpt_plugin.features.extract import extract
from mmpt_plugin.features.files import read_features, write_features
from mmpt_plugin.features.video import write_video

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
    assert "2 of 4 videos failed, 0 videos extracted (0 s), 2 were there\nfailed: " in str(report)


def test_a_file_that_is_not_there_is_named(videos, tmp_path):
    with pytest.raises(ValueError, match=r"1 of 2 videos failed, .*\nfailed: .*gone\.mp4: No such file"):
        extract([videos / "a.mp4", tmp_path / "gone.mp4"], tmp_path / "out", encoder=COLOUR)
    assert (tmp_path / "out" / "a.npy").is_file()


def test_two_videos_of_one_name_in_one_folder_are_refused_before_any_work(videos, tmp_path):
    video(videos / "a.mov", (0, 0, 0))
    with pytest.raises(ValueError, match=r"a\.mov and .*a\.mp4 are both video 'a': rename or move one"):
        extract([videos], tmp_path / "out", encoder=COLOUR)
    assert not (tmp_path / "out").exists()


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
    (tmp_path / "about.txt").write_text("not a video")
    with pytest.raises(ValueError, match=r"no videos in .*; 1 left out, such as: .*about\.txt is a text, not a video$"):
        extract([tmp_path], tmp_path / "out", encoder=COLOUR)


def test_several_processes_give_what_one_gives(videos, tmp_path):
    (videos / "bad.mp4").write_bytes(b"nothing")
    reports = [extract([videos], tmp_path / str(n), encoder=S3D, num_workers=n, allow_missing=True) for n in (1, 2)]
    assert [counts(report) for report in reports] == [(2, 0, 1)] * 2
    assert reports[0].failed == reports[1].failed
    for name in ("a.npy", "b.npy"):
        one, two = (read_features(tmp_path / n / name) for n in "12")
        np.testing.assert_allclose(one, two, atol=2e-3)
    assert counts(extract([videos], tmp_path / "1", encoder=S3D, num_workers=2, allow_missing=True)) == (0, 2, 1)


def test_a_process_that_dies_is_one_line(videos, tmp_path, monkeypatch):
    monkeypatch.setattr(multiprocessing, "get_context", lambda method: FORK)  # what is patched reaches the processes
    monkeypatch.setattr("mmpt_plugin.features.workers.start_worker", lambda *settings: os._exit(1))
    with pytest.raises(ValueError, match="one of 2 processes died"):
        extract([videos], tmp_path / "out", encoder=COLOUR, num_workers=2)


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
