"""`mmpt index` is killed after a video or a commit: what is in the collection then, and after the next run.

`python -m benchmarks.faults --commands index` kills it at moments over its whole run.
"""

import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

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
    setting = Setting(folder / "videos", folder / "model", {})
    process = setting.start(str(folder / "whole"))
    go(process)
    output, errors = process.communicate(timeout=SECONDS)
    assert output.splitlines()[0] == "12 added, 0 unchanged", errors
    return Setting(setting.videos, setting.model, contents(str(folder / "whole")))


def contents(url: str) -> dict[str, Any]:
    """All of a collection, in a form that can be compared."""
    store = Collection.open(url).store
    parts = {video: store.rows(video) for video in store.videos()}
    return {
        video: (about, *(array.tobytes() for array in (parts[video].starts, parts[video].ends, parts[video].vectors)))
        for video, about in store.videos().items()
    }


def kill_after_videos(setting: Setting, url: str, videos: int) -> int:
    """Kill `mmpt index` as soon as the collection has this many videos; then see `check_killed`."""
    process = setting.start(url)
    go(process)
    wait_for_videos(process, url, videos)
    process.kill()
    process.communicate(timeout=SECONDS)
    return check_killed(setting, url)


def wait_for_videos(process: "subprocess.Popen[str]", url: str, videos: int) -> None:
    """Wait until a collection that a process writes has this many videos."""
    while process.poll() is None and not (Collection.exists(url) and len(Collection.open(url).videos()) >= videos):
        time.sleep(0.001)


def kill_after_commits(setting: Setting, url: str, commits: int) -> int:
    """Kill `mmpt index` as soon as it has made this many commits; then see `check_killed`."""
    process = setting.start(url)
    go(process)
    while process.poll() is None and len(list(Path(url).glob("moments.lance/_versions/*.manifest"))) < commits:
        time.sleep(0.001)
    process.kill()
    process.communicate(timeout=SECONDS)
    return check_killed(setting, url)


def check_killed(setting: Setting, url: str) -> int:
    """Check the collection that a killed run left, run it again, and compare; the number of videos that it left.

    AssertionError for a video that is not complete, for a collection that takes more than 5 s to open, and for one
    that the next run does not complete.
    """
    begun = time.monotonic()
    found = contents(url) if Collection.exists(url) else {}
    assert time.monotonic() - begun <= 5
    for video, whole in found.items():
        assert whole == setting.contents[video], video
    again = collection_of(setting, url).index([setting.videos])
    assert (len(again.added), again.unchanged) == (12 - len(found), len(found)), again
    assert contents(url) == setting.contents
    return len(found)


def collection_of(setting: Setting, url: str) -> Collection:
    """The collection, as `mmpt index` would open or create it."""
    return Collection.open(url) if Collection.exists(url) else Collection.create(url, model=setting.model)
