"""Kills and failing writes at any moment lose nothing: the quick version of `python -m benchmarks.faults`."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.fairseq]


def test_twenty_kills_and_some_failing_writes_lose_nothing():
    """Of a few commands, among them a training with neighbors, killed within epochs; the next run is right."""
    compiler = shutil.which("cc") is not None or os.environ.get("FAULT_TESTS") == "required"
    words = ["--commands", "extract,shard,train", "--kills", "20", "--faults", str(2 * compiler), "--pairs", "1"]
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *words, "--json"],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-3000:]}"
    result = json.loads(done.stdout.splitlines()[-1])
    assert result["kills"] >= 15  # some may come after the end of a process
    assert result["faults"] >= 20 * compiler
    assert result["pairs"] == 3
    assert [result[kind] for kind in ("half_written", "lost", "wrong_results", "unclear", "leftovers")] == [0] * 5
