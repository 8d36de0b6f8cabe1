"""Extraction with unreadable files and a full disk: one line each, the other videos continue, no partial files."""

import os
import subprocess
import sys
from contextlib import contextmanager

import numpy as np
import pytest

from mmpt_plugin.features.extract import extract
from mmpt_plugin.features.files import read_features
from mmpt_plugin.files import WriteFailed
from mmpt_plugin.video.write import write_video
from tests.conftest import TINY_ENCODER, run

ENCODER = "{_name: s3d, size: 32, fps: 4}"


@pytest.fixture
def videos(tmp_path):
    folder = tmp_path / "videos"
    folder.mkdir()
    for name in ("a", "b", "c"):
        write_video(folder / f"{name}.mp4", [np.full((32, 32, 3), 90, dtype=np.uint8)] * 40, fps=2)
    return folder


def failures(done):
    return [line for line in done.stderr.splitlines() if line.startswith("failed: ")]


def test_every_kind_of_bad_file_is_one_line_and_the_rest_goes_on(videos, tmp_path):
    (videos / "empty.mp4").touch()
    (videos / "text.mp4").write_text("no video\n" * 100)
    (videos / "cut.mp4").write_bytes((videos / "a.mp4").read_bytes()[:-200])
    done = run("mmpt", "extract", videos, "--encoder", ENCODER, "--out", tmp_path / "out", "--workers", 2, check=False)
    assert done.returncode == 2
    assert "mmpt extract: 3 of 6 videos failed, 3 videos extracted (60 s), 0 already finished" in done.stderr
    assert sorted(line.split(".mp4")[0].rsplit("/", 1)[1] for line in failures(done)) == [
        "cut", "empty", "text",
    ]  # fmt: skip
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        "a.json", "a.npy", "b.json", "b.npy", "c.json", "c.npy",
    ]  # fmt: skip


def test_a_file_that_may_not_be_read_is_named(videos, tmp_path):
    (videos / "b.mp4").chmod(0)
    mmpt = [sys.executable, "-m", "mmpt_plugin.cli"]
    command = [*mmpt, "extract", videos, "--encoder", ENCODER, "--out", tmp_path / "out"]
    if os.geteuid() == 0:  # who may read everything, unless this is taken away
        rights = "-dac_override,-dac_read_search"
        command = ["setpriv", f"--bounding-set={rights}", f"--inh-caps={rights}", *command]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert failures(done) == [f"failed: {videos / 'b.mp4'} can't be decoded: Permission denied"]
    assert "2 videos extracted" in done.stderr


@contextmanager
def small_disk(folder, size):
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}", "none", folder], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("only root may mount a file system")
    try:
        yield folder
    finally:
        subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_named_and_a_second_run_goes_on(videos, tmp_path):
    """20 s of 512-d features take 20 kB; 28 kB are enough for one video, not for two."""
    with small_disk(tmp_path / "disk", "28k") as disk:
        with pytest.raises(WriteFailed, match=r"b\.json can't be written: no space left on device"):
            extract([videos], disk, encoder=TINY_ENCODER, allow_missing=True)
        assert sorted(path.name for path in disk.iterdir()) == ["a.json", "a.npy"]
        assert read_features(disk / "a.npy").shape == (20, 512)
        subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
        report = extract([videos], disk, encoder=TINY_ENCODER)
        assert (report.done, report.skipped) == (2, 1)
