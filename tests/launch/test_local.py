"""The same command without SLURM: submitit's local executor, several processes, the same signal handling."""

import contextlib
import json
import os
import re
import signal
import subprocess
from pathlib import Path

import pytest

from mmpt_plugin.launch import job_statuses
from mmpt_plugin.report.curve import records
from tests.conftest import run
from tests.launch.cluster import wait_until

pytestmark = [pytest.mark.slow, pytest.mark.fairseq]


@pytest.fixture
def launched():
    """Launches a training on this machine; whatever still runs at the end of the test is killed."""
    jobs: list[str] = []

    def launch(narrated, folder: Path, *overrides: str) -> str:
        words = ["mmpt", "launch", narrated.project, "--profile", "slurm/local.yaml", f"checkpoint.save_dir={folder}"]
        words += ["slurm.setup=[export SETUP_RAN=yes]"]
        jobs.append(re.search(r"job (\d+)", run(*words, *overrides, cwd=folder.parent).stdout).group(1))
        return jobs[-1]

    yield launch
    for job_id in jobs:
        for pid in [int(job_id), *tasks_of(job_id)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def losses(folder: Path) -> dict[int, float]:
    log = folder / "train.log"
    found = records(log) if log.exists() else ()
    return {int(r["num_updates"]): float(r["loss"]) for r in found if "num_updates" in r}


def tasks_of(job_id: str) -> list[int]:
    found = subprocess.run(["pgrep", "--parent", job_id], text=True, capture_output=True, check=False)
    return [int(pid) for pid in found.stdout.split()]


def wait_for(folder: Path, state: str) -> None:
    wait_until(lambda: [job.state for job in job_statuses(folder)] == [state], state)


def test_two_processes_train_as_one_and_can_be_watched(narrated, tmp_path):
    run("mmpt", "train", narrated.project, f"checkpoint.save_dir={tmp_path}/one", "dataset.batch_size=2",
        "common.log_format=json", f"common.log_file={tmp_path}/one/train.log")  # fmt: skip
    folder = tmp_path / "two"
    done = run("mmpt", "launch", narrated.project, "--profile", "slurm/local.yaml", f"checkpoint.save_dir={folder}",
               f"common.tensorboard_logdir={folder}/tensorboard", "--wait", cwd=tmp_path)  # fmt: skip
    job_id = re.search(r"job (\d+): COMPLETED", done.stdout).group(1)
    assert len(losses(folder)) == 24
    assert losses(folder) == pytest.approx(losses(tmp_path / "one"), abs=2e-4)
    assert list((folder / "tensorboard" / "train_inner").glob("events.*"))
    (job,) = json.loads(run("mmpt", "jobs", tmp_path, "--json").stdout)
    assert (job["folder"], job["job"], job["state"], job["why"]) == (str(folder), job_id, "COMPLETED", "")
    assert (job["epoch"], job["update"], job["loss"]) == (2, 24, losses(folder)[24])
    assert job["pairs_per_second"] > 0
    assert Path(job["log"]).is_file()


def test_a_signal_saves_the_run_which_starts_again_and_sigterm_ends_it(launched, narrated, tmp_path):
    folder = tmp_path / "run"
    job_id = launched(narrated, folder, "optimization.max_epoch=1000", "task.dataset.pairs_per_video=16")
    again = run("mmpt", "launch", narrated.project, "--profile", "local", f"checkpoint.save_dir={folder}", check=False)
    assert re.search(f"job {job_id} there is (PENDING|RUNNING); wait for it, or stop it: kill {job_id}", again.stderr)
    wait_until(lambda: len(losses(folder)) > 20, "some updates")
    for pid in tasks_of(job_id):
        os.kill(pid, signal.SIGUSR2)
    wait_until(lambda: len((folder / "starts.jsonl").read_text().splitlines()) == 2, "another start")
    before = len(losses(folder))
    wait_until(lambda: len(losses(folder)) > before, "another update")
    assert b"SETUP_RAN=yes" in Path(f"/proc/{tasks_of(job_id)[0]}/environ").read_bytes()
    os.kill(int(job_id), signal.SIGTERM)
    wait_for(folder, "INTERRUPTED")
    updates = [int(r["num_updates"]) for r in records(folder / "train.log") if "num_updates" in r]
    assert updates == list(range(1, len(updates) + 1)), "an update was lost or made twice"
    assert (folder / "checkpoint_last.pt").exists()
    assert len((folder / "starts.jsonl").read_text().splitlines()) == 2


def test_an_error_is_shown_by_mmpt_jobs(launched, narrated, tmp_path):
    folder = tmp_path / "run"
    launched(narrated, folder, "model.bert=/no/such/folder", "--no-check")
    wait_for(folder, "FAILED")
    assert "/no/such/folder" in run("mmpt", "jobs", folder).stdout
