"""Ctrl-C reaches all processes of a terminal; only the main process reports it."""

import os
import signal
import subprocess
import sys

import pytest

SCRIPT = """
from concurrent.futures import ProcessPoolExecutor

import slow
from mmpt_plugin.signals import WorkerContext

if __name__ != "__main__":
    slow.say("importing")
else:
    try:
        with ProcessPoolExecutor(2, WorkerContext()) as pool:
            print(list(pool.map(slow.double, [1, 2])))
    except KeyboardInterrupt:
        print("stopped")
"""
SLOW = """
import time

def say(word):
    print(word, flush=True)
    time.sleep({seconds}[word])

def double(x):
    say("working")
    return 2 * x
"""


def start(folder, **seconds):
    """The script; its processes wait for some seconds when they have said a word."""
    (folder / "slow.py").write_text(SLOW.format(seconds=seconds))
    (folder / "script.py").write_text(SCRIPT)
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    return subprocess.Popen([sys.executable, folder / "script.py"], start_new_session=True, **pipes)


@pytest.mark.parametrize("moment", ["importing", "working"])
def test_a_worker_process_that_ctrl_c_ends_says_nothing(tmp_path, moment):
    process = start(tmp_path, importing=3 if moment == "importing" else 0, working=60)
    while process.stdout.readline().strip() != moment:
        assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    printed, error = process.communicate(timeout=60)
    assert printed.splitlines()[-1] == "stopped"
    assert error == ""
    assert process.returncode == 0


def test_worker_processes_work(tmp_path):
    printed, error = start(tmp_path, importing=0, working=0).communicate(timeout=60)
    assert "[2, 4]" in printed.splitlines()
    assert error == ""
