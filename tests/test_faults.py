"""Kills and failing writes at any moment lose nothing: the quick version of `python -m benchmarks.faults`."""

import json
import os
import shutil
import subprocess
import sys

import pytest

from tests.conftest import ROOT

pytestmark = [pytest.mark.slow, pytest.mark.fairseq]


def faults(*words):
    """The last line of the benchmark, and all lines."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.faults", *words, "--json"],
        cwd=ROOT, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}, capture_output=True, text=True,
        timeout=600, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-5000:]}\n{done.stderr[-3000:]}"
    return json.loads(done.stdout.splitlines()[-1])


def test_twenty_kills_lose_nothing_and_no_run_is_wrong():
    """Of a few commands, among them a training with neighbors, killed within epochs."""
    result = faults("--commands", "extract,shard,train,convert", "--kills", "20", "--faults", "0", "--pairs", "1")
    wrong = {"half_written": 0, "lost": 0, "wrong_results": 0, "unclear": 0, "leftovers": 0}
    assert result == {"kills": 20, "faults": 0, "pairs": 4, **wrong, "late": result["late"]}


def test_a_write_that_fails_is_one_line_and_the_next_run_succeeds():
    if shutil.which("cc") is None and os.environ.get("FAULT_TESTS") != "required":
        pytest.skip("no C compiler, for the library that lets writes fail")
    result = faults("--commands", "extract,shard,train", "--kills", "0", "--faults", "1", "--pairs", "0")
    assert result["faults"] >= 12
