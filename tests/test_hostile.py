"""Files that are damaged or made to harm: one line says what is wrong, nothing hangs, no code runs.

The full version, with thousands of files, is `python -m benchmarks.hostile`.
"""

import os
import subprocess
import sys

import pytest

from tests.conftest import ROOT

CASES = 200


@pytest.mark.slow
def test_hostile_files_are_refused_in_one_line(tmp_path):
    """In a process of its own, which forks, so it must not have started threads. Valid files are accepted."""
    command = [sys.executable, "-m", "benchmarks.hostile", "--cases", str(CASES), "--json", "--keep", tmp_path]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stdout[-5000:] + done.stderr[-3000:]
