"""`mmpt index` is killed at random moments: what is in the collection then, and after the next run."""

import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmpt_plugin.models import CLIPMean
from mmpt_plugin.models.clip import CLIPModelConfig
from mmpt_plugin.search import Collection
from mmpt_plugin.toy_kitchen import generate
from tests.models.clip_family import TINY

SECONDS = 240
# `mmpt` with a commit for each video; it says when its imports are done, and begins when it is told to.
MMPT = """
import sys
from mmpt_plugin.cli import main
from mmpt_plugin.search import collection
collection.COMMIT_ROWS = 1
print("ready", flush=True)
sys.stdin.readline()
sys.exit(main(sys.argv[1:]))
"""


@dataclass(frozen=True)
class Setting:
    """Twelve videos, an untrained model, and what an uninterrupted `mmpt index` makes of them."""

    videos: Path
    model: Path
    contents: dict[str, Any]
    seconds: float
    """How long the uninterrupted run took after its imports."""

    def start(self, url: str) -> "subprocess.Popen[str]":
        """A process that has imported everything and waits for `go`."""
        words = ["index", str(self.videos), "--collection", url, "--model", str(self.model)]
        process = subprocess.Popen(
            [sys.executable, "-c", MMPT, *words],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        )  # fmt: skip
        assert process.stdout is not None
        line = process.stdout.readline()
        assert line == "ready\n", line
        return process


@dataclass(frozen=True)
class Killed:
    """What one kill left."""

    moment: float
    """Seconds after the imports."""
    num_videos: int | None
    """Videos in the collection, all of them complete; None if there was no collection yet."""
    open_seconds: float


def go(process: "subprocess.Popen[str]") -> None:
    """Let a process begin."""
    assert process.stdin is not None
    process.stdin.write("go\n")
    process.stdin.flush()


def prepare(folder: Path) -> Setting:
    """Make the videos and the model in a folder, and index them once without a kill."""
    generate(folder, num_train=6, num_test=6, num_workers=2)
    torch.manual_seed(0)
    CLIPMean(CLIPModelConfig(**TINY)).save_pretrained(folder / "model")  # type: ignore[arg-type]
    setting = Setting(folder / "videos", folder / "model", {}, 0.0)
    process = setting.start(str(folder / "whole"))
    begun = time.monotonic()
    go(process)
    output, errors = process.communicate(timeout=SECONDS)
    assert output.splitlines()[0] == "12 added, 0 unchanged", errors
    seconds = time.monotonic() - begun
    return Setting(setting.videos, setting.model, contents(str(folder / "whole")), seconds)


def contents(url: str) -> dict[str, Any]:
    """All of a collection, in a form that can be compared."""
    store = Collection.open(url).store
    parts = {video: store.rows(video) for video in store.videos()}
    return {
        video: (about, *(array.tobytes() for array in (parts[video].starts, parts[video].ends, parts[video].vectors)))
        for video, about in store.videos().items()
    }


def kill_once(setting: Setting, url: str, moment: float) -> Killed:
    """Kill `mmpt index` this many seconds after its imports, or at its end; then see `check_killed`."""
    process = setting.start(url)
    go(process)
    try:
        process.communicate(timeout=moment)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate(timeout=SECONDS)
    return check_killed(setting, url, moment)


def kill_after_videos(setting: Setting, url: str, videos: int) -> Killed:
    """Kill `mmpt index` as soon as the collection has this many videos; then see `check_killed`."""
    process = setting.start(url)
    begun = time.monotonic()
    go(process)
    wait_for_videos(process, url, videos)
    process.kill()
    process.communicate(timeout=SECONDS)
    return check_killed(setting, url, time.monotonic() - begun)


def wait_for_videos(process: "subprocess.Popen[str]", url: str, videos: int) -> None:
    """Wait until a collection that a process writes has this many videos."""
    while process.poll() is None and not (Collection.exists(url) and len(Collection.open(url).videos()) >= videos):
        time.sleep(0.001)


def kill_after_commits(setting: Setting, url: str, commits: int) -> Killed:
    """Kill `mmpt index` as soon as it has made this many commits; then see `check_killed`."""
    process = setting.start(url)
    begun = time.monotonic()
    go(process)
    while process.poll() is None and len(list(Path(url).glob("moments.lance/_versions/*.manifest"))) < commits:
        time.sleep(0.001)
    process.kill()
    process.communicate(timeout=SECONDS)
    return check_killed(setting, url, time.monotonic() - begun)


def check_killed(setting: Setting, url: str, moment: float) -> Killed:
    """Check the collection that a killed run left, run it again, and compare.

    AssertionError for a video that is not complete, for a collection that takes more than 5 s to open, and for one
    that the next run does not complete.
    """
    begun = time.monotonic()
    found = contents(url) if Collection.exists(url) else None
    open_seconds = time.monotonic() - begun
    assert open_seconds <= 5
    for video, whole in (found or {}).items():
        assert whole == setting.contents[video], f"killed after {moment:.3f} s: {video}"
    again = collection_of(setting, url).index([setting.videos])
    assert (len(again.added), again.unchanged) == (12 - len(found or {}), len(found or {})), again
    assert contents(url) == setting.contents, f"killed after {moment:.3f} s"
    return Killed(moment, None if found is None else len(found), open_seconds)


def collection_of(setting: Setting, url: str) -> Collection:
    """The collection, as `mmpt index` would open or create it."""
    return Collection.open(url) if Collection.exists(url) else Collection.create(url, model=setting.model)


def kill_often(folder: Path, *, kills: int, seed: int = 0) -> list[Killed]:
    """`kill_once` for several new collections in a folder."""
    setting, rng = prepare(folder), np.random.default_rng(seed)
    killed = []
    for number in range(kills):
        moment = float(rng.uniform(0, setting.seconds))
        killed.append(kill_once(setting, str(folder / f"killed_{number}"), moment))
        shutil.rmtree(folder / f"killed_{number}")
    return killed
