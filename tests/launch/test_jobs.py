"""`mmpt jobs`, in a terminal and for scripts, and local jobs that wait, run and are stopped."""

import contextlib
import json
import os
import pty
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread

import pytest

pytest.importorskip("submitit")

from submitit.core.utils import JobPaths, cloudpickle_dump

from mmpt_plugin.launch import load_profile, stop_command, submit_plans
from mmpt_plugin.launch.jobs import CommandJob, TrainingJob
from mmpt_plugin.launch.local import MODULE, slot
from mmpt_plugin.launch.submit import Plan
from mmpt_plugin.launch.watch import Launched, job_statuses
from tests.conftest import ROOT, run
from tests.launch.cluster import wait_until


def launched(folder: Path, job_id: str, error: str = "") -> Launched:
    """The record of a local job; with an error, also the result of its task."""
    job = Launched(str(folder), job_id, "local", 1, str(folder / "slurm"), ["train"])
    job.write()
    if error:
        result = JobPaths(job.logs, job_id=job_id, task_id=0).result_pickle
        result.parent.mkdir(parents=True)
        cloudpickle_dump(("error", f"Traceback (most recent call last):\n  ...\nValueError: {error}\n"), result)
    return job


@pytest.fixture
def running() -> Iterator[subprocess.Popen[bytes]]:
    """A process with the words of a local job's controller."""
    with subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()", MODULE]) as process:
        yield process
        process.kill()


@pytest.fixture
def two_jobs(tmp_path, running) -> Path:
    """One has failed; the other runs, and is at its second epoch."""
    launched(tmp_path / "runs" / "failed", "999999999", error="no shards in [/nowhere]")
    job = launched(tmp_path / "runs" / "at work", str(running.pid))
    job.log.parent.mkdir(parents=True)
    job.log.touch()
    line = {"epoch": 2, "update": 1.5, "loss": "6.25", "ups": "2", "bsz": "16", "num_updates": "24"}
    (Path(job.folder) / "train.log").write_text(f"2026-01-01 00:00:00 | INFO | train_inner | {json.dumps(line)}\n")
    return tmp_path


def test_jobs_as_json(two_jobs, running):
    found = json.loads(run("mmpt", "jobs", "--json", cwd=two_jobs).stdout)
    assert found[0] == {
        "folder": f"{two_jobs}/runs/at work", "job": str(running.pid), "state": "RUNNING", "why": "", "epoch": 2,
        "update": 24, "loss": 6.25, "pairs_per_second": 32.0,
        "log": f"{two_jobs}/runs/at work/slurm/{running.pid}_0_log.out", "stop": f"kill {running.pid}",
    }  # fmt: skip
    failed = [found[1][key] for key in ("state", "why", "loss", "stop")]
    assert failed == ["FAILED", "ValueError: no shards in [/nowhere]", None, ""]


def test_the_table_is_plain_and_uncut_without_a_terminal(two_jobs, running):
    text = run("mmpt", "jobs", cwd=two_jobs, COLUMNS="20").stdout
    assert "\x1b" not in text
    assert re.search(rf"^{running.pid} +RUNNING +2 +24 +6.25 +32 +{two_jobs}/runs/at work *$", text, re.M)
    assert re.search(r"^ +ValueError: no shards in \[/nowhere\] *$", text, re.M)
    assert re.search(rf"^ +runs/at work/slurm/{running.pid}_0_log.out *$", text, re.M)


@contextlib.contextmanager
def watching(folder: Path) -> Iterator[tuple[subprocess.Popen[bytes], Callable[[bytes], bytes]]]:
    """`mmpt jobs --watch` in a pseudo-terminal, and a function that reads what it shows up to some words."""
    ours, theirs = pty.openpty()
    words = [sys.executable, "-m", "mmpt_plugin.cli", "jobs", "runs", "--watch", "0.2"]
    environment = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    environment |= {"TERM": "xterm", "COLUMNS": "120", "PYTHONPATH": str(ROOT)}

    def until(there: bytes) -> bytes:
        shown = b""
        while there not in shown and (chunk := os.read(ours, 4096)):
            shown += chunk
        return shown

    with subprocess.Popen(words, cwd=folder, stdout=theirs, stderr=theirs, env=environment) as process:
        os.close(theirs)
        yield process, until
    os.close(ours)


def test_a_watched_table_is_in_colour_and_ends_with_the_jobs(two_jobs, running):
    with watching(two_jobs) as (process, until):
        until(b"\x1b[36mRUNNING")
        until(b"\x1b[31mFAILED")
        running.kill()
        running.wait()
        until(b"\x1b[31mINTERRUPTED")
        assert process.wait(10) == 0


def test_ctrl_c_ends_watching_without_a_traceback(two_jobs):
    with watching(two_jobs) as (process, until):
        until(b"RUNNING")
        process.send_signal(signal.SIGINT)
        assert process.wait(10) == 0


def test_an_array_is_stopped_with_one_number():
    jobs = [Launched("runs", f"12_{k}", "slurm", 1, "logs", []) for k in range(3)]
    assert stop_command(jobs) == "scancel 12"
    assert stop_command(jobs[1:2]) == "scancel 12_1"


def test_no_more_run_at_once_than_there_are_slots(tmp_path):
    happened = []

    def third() -> None:
        with slot(tmp_path, 2):
            happened.append("third")

    waiting = Thread(target=third)
    with slot(tmp_path, 2):
        with slot(tmp_path, 2):
            waiting.start()
            waiting.join(0.2)  # enough to enter if nothing held it back
            happened.append("left")
        waiting.join(10)
        assert happened == ["left", "third"]


def states(root: Path) -> list[str]:
    return sorted(job.state for job in job_statuses(root))


@pytest.mark.slow
def test_a_local_array_runs_as_many_at_once_as_asked_and_each_can_be_stopped(tmp_path):
    """The jobs' Python is a command that waits for a file."""
    for name in ("a.mp4", "b.mp4", "c.mp4"):
        (tmp_path / name).touch()
    python = f"bash -c 'until [ -e {tmp_path}/go ]; do sleep 0.1; done'"
    done = run(
        "mmpt", "launch", "extract", tmp_path, "--encoder", "s3d", "--out", "out", "--profile", "local",
        f'slurm.python="{python}"', "--parts", "3", "--parallel", "1", cwd=tmp_path,
    )  # fmt: skip
    runs = tmp_path / "runs"
    numbers = re.search(r"^stop: kill ([\d ]+)$", done.stdout, re.M).group(1).split()
    try:
        wait_until(lambda: "RUNNING" in states(runs), "a job to run")
        assert states(runs) == ["PENDING", "PENDING", "RUNNING"]
        waits, runs_now = (
            next(int(job.job) for job in job_statuses(runs) if job.state == state) for state in ("PENDING", "RUNNING")
        )
        os.kill(waits, signal.SIGTERM)
        os.kill(runs_now, signal.SIGTERM)
        wait_until(lambda: states(runs) == ["INTERRUPTED", "INTERRUPTED", "RUNNING"], "the last one to run")
    finally:
        (tmp_path / "go").touch()
        wait_until(lambda: not any(Path(f"/proc/{number}").exists() for number in numbers), "the end of all")


@pytest.mark.slow
def test_a_local_command_is_stopped_with_its_job(tmp_path):
    """It reads a list of videos from a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "list.txt")
    words = ["extract", str(tmp_path / "list.txt"), "--encoder", "s3d", "--out", str(tmp_path / "out")]
    profile = load_profile("local")
    (job,) = submit_plans(
        [Plan(tmp_path, CommandJob(words), words)], profile, name="mmpt-extract", logs=tmp_path / "slurm"
    )

    def commands() -> list[str]:
        found = subprocess.run(["pgrep", "-f", f"cli extract {tmp_path}"], text=True, capture_output=True, check=False)
        return found.stdout.split()

    try:
        second = JobPaths(job.logs, job_id=job.job_id, task_id=1).result_pickle
        wait_until(lambda: second.exists() and commands(), "the first task's command, and the end of the second task")
        os.kill(int(job.job_id), signal.SIGTERM)
        wait_until(lambda: states(tmp_path) == ["INTERRUPTED"], "the job's end")
        assert commands() == []
    finally:
        for pid in commands():
            os.kill(int(pid), signal.SIGKILL)


@pytest.mark.slow
@pytest.mark.fairseq
def test_a_local_training_can_be_stopped_before_it_trains(tmp_path):
    """It reads the earlier starts from a pipe that nobody writes to."""
    os.mkfifo(tmp_path / "starts.jsonl")
    job = TrainingJob({"checkpoint": {"save_dir": str(tmp_path)}}, signal_seconds=60)
    profile = load_profile("local", ["slurm.tasks_per_node=1"])
    (record,) = submit_plans([Plan(tmp_path, job, ["train"])], profile, name="mmpt-train", logs=tmp_path / "slurm")

    def catches_usr2(pid: str) -> bool:
        caught = re.search(r"SigCgt:\s*(\w+)", Path(f"/proc/{pid}/status").read_text()).group(1)
        return bool(int(caught, 16) >> signal.SIGUSR2 - 1 & 1)

    tasks: list[str] = []
    try:
        children = Path(f"/proc/{record.job_id}/task/{record.job_id}/children")
        wait_until(lambda: any(map(catches_usr2, children.read_text().split())), "submitit's handlers")
        tasks = children.read_text().split()
        os.kill(int(record.job_id), signal.SIGTERM)
        wait_until(lambda: states(tmp_path) == ["INTERRUPTED"], "the job's end")
    finally:
        for pid in (*tasks, record.job_id):
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(pid), signal.SIGKILL)
