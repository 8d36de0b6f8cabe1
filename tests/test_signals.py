"""Ctrl-C reaches all processes of a terminal; only the main process reports it."""

import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing import resource_tracker

import pytest

from mmpt_plugin.signals import WorkerContext

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
import os
import time

def say(word):
    os.write(1, (word + "\\n").encode())  # whole, also if several processes say something
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


def test_ctrl_c_before_the_start_of_a_worker_process_ends_it_too():
    """The signal is pending in the main process, which is just about to start another."""
    process = WorkerContext().Process(target=time.sleep, args=(60,))
    resource_tracker.ensure_running()  # to start it unblocks SIGINT
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        process.start()
        assert signal.sigwait([signal.SIGINT]) == signal.SIGINT
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
    process.join(30)
    assert process.exitcode == -signal.SIGINT


def test_worker_processes_work(tmp_path):
    printed, error = start(tmp_path, importing=0, working=0).communicate(timeout=60)
    assert "[2, 4]" in printed.splitlines()
    assert error == ""
