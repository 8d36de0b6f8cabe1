"""Trainings and arrays on a real SLURM cluster of four nodes, with signals, preemption and failures."""

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmpt_plugin.report.curve import records
from tests.conftest import TINY_ENCODER, run
from tests.launch.cluster import NUM_CPUS, Cluster, wait_until

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.fairseq]

LONG = ["optimization.max_epoch=10", "task.dataset.pairs_per_video=16"]
"""120 updates on two nodes, 12 an epoch, a save every 5: long enough to be interrupted within an epoch."""
SAVES = ["checkpoint.save_interval_updates=5", "checkpoint.keep_interval_updates=2"]


class Run:
    """A training launched into a folder."""

    def __init__(self, slurm: Cluster, folder: Path, project: Path) -> None:
        self.slurm, self.folder, self.project = slurm, folder, project

    def launch(self, *overrides: str, nodes: int = 2, **profile: object) -> "Run":
        keys = {"nodes": nodes, "hours": 0.2, "signal_seconds": 60} | profile
        path = self.folder.with_suffix(".yaml")
        path.write_text(json.dumps(keys))
        done = run(
            "mmpt", "launch", self.project, "--profile", path, f"checkpoint.save_dir={self.folder}", *overrides,
            cwd=self.folder.parent,
        )  # fmt: skip
        self.job_id = re.search(r"job (\d+)", done.stdout).group(1)
        return self

    @property
    def state(self) -> str:
        return self.slurm.job_state(self.job_id)

    @property
    def updates(self) -> list[tuple[int, float]]:
        """Number and loss of every update, in the order in which they were made."""
        log = self.folder / "train.log"
        found = records(log) if log.exists() else ()
        return [(int(r["num_updates"]), float(r["loss"])) for r in found if "num_updates" in r]

    def wait_for_update(self, number: int) -> None:
        wait_until(lambda: self.updates and self.updates[-1][0] >= number, f"update {number}")

    def ends(self, state: str, *, seconds: float = 240) -> "Run":
        wait_until(lambda: self.state in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"), state, seconds=seconds)
        log = self.folder / "slurm" / f"{self.job_id}_0_log.out"
        assert self.state == state, log.read_text()[-3000:] if log.exists() else log
        return self

    @property
    def starts(self) -> int:
        return len((self.folder / "starts.jsonl").read_text().splitlines())

    def task_on(self, node: str) -> int:
        """The process that trains there; srun, where the batch script runs, has the same words after its own."""
        words = {pid: Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0") for pid in self.slurm.step_processes(node)}
        (task,) = [pid for pid, word in words.items() if b"python" in word[0] and b"submitit.core._submit" in word]
        return task

    def resumes_after(self, happening: Callable[[], object], what: str, record_property: Callable[..., None]) -> None:
        """The job starts again and trains on; the tests' summary says how long that took."""
        before, begin = self.starts, time.monotonic()
        happening()
        wait_until(lambda: self.starts > before, f"another start after {what}")
        made = len(self.updates)
        wait_until(lambda: len(self.updates) > made, "an update after it")
        record_property(what, f"training again after {time.monotonic() - begin:.0f} s")


@pytest.fixture
def training(slurm, narrated, tmp_path) -> Iterator[Run]:
    yield Run(slurm, tmp_path / "run", narrated.project)
    slurm.command("scancel", "--user=root")


@pytest.fixture(scope="module")
def straight(slurm, narrated, tmp_path_factory) -> dict[int, float]:
    """Loss by update of the long training on two nodes, left alone."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    alone = Run(slurm, folder, narrated.project).launch(*LONG, *SAVES).ends("COMPLETED")
    assert [number for number, _ in alone.updates] == list(range(1, 121))
    return dict(alone.updates)


def assert_same_curve(interrupted: Run, straight: dict[int, float]) -> None:
    """Every update, made once or again after a restart, had the loss of the training that was left alone."""
    assert {number for number, _ in interrupted.updates} == set(straight)
    for number, loss in interrupted.updates:
        assert loss == pytest.approx(straight[number], abs=2e-4), f"update {number}"


@pytest.mark.parametrize("nodes", [2, 4])
def test_nodes_train_as_one_process_with_all_their_clusters(training, narrated, nodes, tmp_path):
    """Each node takes one cluster of an update; a single process with as many sees the same pairs. The losses of two
    epochs, the second on clusters that the first one's weights have chosen, agree to 2e-4 of about 7."""
    training.launch(nodes=nodes).ends("COMPLETED")
    alone = Run(training.slurm, tmp_path / "alone", narrated.project)
    run(
        "mmpt", "train", narrated.project, f"checkpoint.save_dir={alone.folder}", f"dataset.batch_size={nodes}",
        "common.log_format=json", f"common.log_file={alone.folder}/train.log",
    )  # fmt: skip
    assert len(training.updates) == 48 // nodes
    assert training.updates == [(number, pytest.approx(loss, abs=2e-4)) for number, loss in alone.updates]


def test_a_job_that_reaches_its_time_limit_is_saved_and_goes_on(training, straight, record_property):
    """SLURM sends SIGUSR2 30 s before the end of a minute, or earlier. The second start has all the time it needs.

    The tasks don't find SLURM's commands, as in a container."""
    python = f"env PATH=/nowhere {sys.executable}"
    training.launch(*LONG, "optimization.max_epoch=30", hours=1 / 60, signal_seconds=30, python=python)
    wait_until(lambda: training.folder.exists() and (training.folder / "starts.jsonl").exists(), "a start")
    training.resumes_after(lambda: None, "time limit", record_property)
    training.slurm.command("scontrol", "update", f"jobid={training.job_id}", "timelimit=10")
    training.ends("COMPLETED")
    numbers = [number for number, _ in training.updates]
    assert numbers == list(range(1, 361)), "an update was lost or made twice"
    for number, loss in training.updates[: len(straight)]:
        assert loss == pytest.approx(straight[number], abs=2e-4)


def test_a_preempted_job_is_saved_and_no_update_made_twice(training, straight, record_property):
    """Another job takes all CPUs of the nodes; the checkpoint is that of the update under way, not of the last save."""
    training.launch(*LONG)
    training.wait_for_update(20)
    urgent = ["srun", "--partition=urgent", "--nodes=4", "--exclusive", "sleep", "1"]
    training.resumes_after(lambda: training.slurm.command(*urgent), "preemption", record_property)
    training.ends("COMPLETED")
    assert [number for number, _ in training.updates] == list(range(1, 121))
    assert_same_curve(training, straight)


def test_where_no_update_ends_in_time_the_job_is_queued_again_all_the_same(training, straight, record_property):
    """One of the two tasks hangs; with 10 s left, rank 0 waits 8 s."""
    training.launch(*LONG, *SAVES, signal_seconds=10)
    training.wait_for_update(20)

    def stall_and_signal() -> None:
        os.kill(training.task_on("node2"), signal.SIGSTOP)
        time.sleep(2)  # until the other waits for it in a collective, where Python runs no signal handler
        training.slurm.command("scancel", "--signal=USR2", training.job_id)

    training.resumes_after(stall_and_signal, "SIGUSR2 with a task that hangs", record_property)
    assert_same_curve(training.ends("COMPLETED"), straight)


def test_scontrol_requeue_in_mid_epoch(training, straight, record_property):
    training.launch(*LONG, *SAVES)
    training.wait_for_update(20)
    again = ["scontrol", "requeue", training.job_id]
    training.resumes_after(lambda: training.slurm.command(*again), "scontrol requeue", record_property)
    assert_same_curve(training.ends("COMPLETED"), straight)


def test_a_node_that_dies_in_mid_step(training, straight, record_property):
    training.launch(*LONG, *SAVES)
    training.wait_for_update(20)

    def power_failure() -> None:
        training.slurm.kill_node("node1")
        training.slurm.start_node("node1")

    training.resumes_after(power_failure, "node failure", record_property)
    assert_same_curve(training.ends("COMPLETED"), straight)


@pytest.mark.parametrize("node", ["node1", "node2"])
def test_a_task_that_is_killed_takes_the_job_down_and_brings_it_back(training, straight, node, record_property):
    training.launch(*LONG, *SAVES)
    training.wait_for_update(20)
    training.resumes_after(
        lambda: os.kill(training.task_on(node), signal.SIGKILL), f"a task killed on {node}", record_property
    )
    assert_same_curve(training.ends("COMPLETED"), straight)


def test_a_cancelled_job_is_saved_and_not_started_again(training):
    training.launch(*LONG)
    training.wait_for_update(20)
    training.slurm.command("scancel", training.job_id)
    training.ends("CANCELLED")
    time.sleep(8)
    assert training.state == "CANCELLED"
    assert training.starts == 1
    assert (training.folder / "checkpoint_last.pt").exists()


def fill(path: Path) -> None:
    """Takes all the space there is."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"0" * 65536):
            pass


def test_a_full_disk_fails_the_job_and_keeps_the_last_whole_checkpoint(training, straight):
    """Launched again when there is space, it resumes from there."""
    training.folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", training.folder], check=True)
    try:
        training.launch(*LONG, *SAVES)
        training.wait_for_update(20)
        fill(training.folder / "filler")
        training.ends("FAILED")
        made = len(training.updates)
        assert made < 120
        (training.folder / "filler").unlink()
        training.launch(*LONG, *SAVES).ends("COMPLETED")
        assert training.updates[made][0] > 10, "it has not begun again"
        assert_same_curve(training, straight)
    finally:
        subprocess.run(["umount", "--lazy", training.folder], check=True)


def test_a_checkpoint_cut_short_is_not_resumed_from(training, straight):
    training.launch(*LONG, *SAVES, "optimization.max_update=40").ends("COMPLETED")
    last = training.folder / "checkpoint_last.pt"
    last.write_bytes(last.read_bytes()[:-1000])
    training.launch(*LONG, *SAVES, "--resume").ends("COMPLETED")
    assert (training.folder / "checkpoint_last.damaged").exists()
    assert training.updates[40][0] == 41  # from checkpoint_4_40.pt, which is intact
    assert_same_curve(training, straight)


def test_two_jobs_at_once_on_the_same_nodes(training, slurm, narrated, tmp_path):
    other = Run(slurm, tmp_path / "other", narrated.project)
    with ThreadPoolExecutor() as pool:  # at the same time, so that neither has ended when the other is launched
        both = list(pool.map(lambda job: job.launch(*LONG, exclude="node[3-4]"), (training, other)))
    wait_until(lambda: [job.state for job in both] == ["RUNNING", "RUNNING"], "both to run")
    for job in both:
        job.ends("COMPLETED")
    assert training.updates == [(number, pytest.approx(loss, abs=2e-4)) for number, loss in other.updates]
    logs = [(job.folder / "slurm" / f"{job.job_id}_0_log.out").read_text() for job in both]
    places = [re.search(r"distributed init \(rank 0\): (\S+)", log).group(1) for log in logs]
    assert places[0] != places[1]


def test_an_error_of_ones_own_fails_the_job_at_once(training):
    training.launch("model.bert=/no/such/folder", "--no-check").ends("FAILED")
    assert training.starts == 1
    assert "/no/such/folder" in run("mmpt", "jobs", training.folder).stdout


def test_a_sweep_trains_once_for_each_value(training):
    done = run(
        "mmpt", "launch", training.project, "--profile", "cpu", "slurm.cpus_per_task=1", "slurm.mem_gb=0",
        "optimization.lr=1e-3,2e-3", f"checkpoint.save_dir={training.folder}", "--wait", cwd=training.folder.parent,
    ).stdout  # fmt: skip
    ids = re.findall(r"job (\d+_\d): COMPLETED", done)
    assert [i.split("_")[1] for i in ids] == ["0", "1"]
    rates = {
        folder.name: next(r["lr"] for r in records(folder / "train.log") if "lr" in r)
        for folder in training.folder.glob("optimization.lr=*")
    }
    assert rates == {
        "optimization.lr=0.001": "0.0002",
        "optimization.lr=0.002": "0.0004",
    }  # the first of 5 warmup updates


def test_an_array_with_a_failing_member_is_launched_again_for_that_member_only(slurm, kitchen, tmp_path):
    """Extraction in three parts of a list, one of whose videos is broken at first."""
    (tmp_path / "videos").mkdir()
    whole = sorted((kitchen.root / "videos").glob("*.mp4"))[:6]
    videos = [Path(shutil.copy2(path, tmp_path / "videos")) for path in whole]
    videos[4].write_bytes(b"no video")
    (tmp_path / "list.txt").write_text("\n".join(map(str, videos)))
    words = [
        "mmpt", "launch", "extract", tmp_path / "list.txt", "--encoder", json.dumps(TINY_ENCODER), "--out",
        tmp_path / "features", "--profile", "cpu", "--parts", "3", "slurm.cpus_per_task=1", "--wait",
    ]  # fmt: skip
    first = run(*words, cwd=tmp_path, check=False)
    assert first.returncode == 1
    assert re.findall(r"job \d+_(\d): ([A-Z]+)", first.stdout) == [
        ("0", "COMPLETED"),
        ("1", "FAILED"),
        ("2", "COMPLETED"),
    ]
    assert len(list((tmp_path / "features").glob("*.npy"))) == 5
    shutil.copy2(whole[4], videos[4])
    again = run(*words, cwd=tmp_path)
    assert "1 of 3 parts to do: part-2-of-3" in again.stdout
    assert len(list((tmp_path / "features").glob("*.npy"))) == 6
    assert "0 of 3 parts to do" in run(*words, cwd=tmp_path).stdout


def test_an_evaluation_runs_as_a_job(slurm, kitchen, narrated, tmp_path):
    run("mmpt", "train", narrated.project, f"checkpoint.save_dir={tmp_path}", "model.feature_dim=512",
        f"task.dataset.splits.train={kitchen.shards}", "optimization.max_epoch=1")  # fmt: skip
    run(
        "mmpt", "launch", "evaluate", "videoclip/zeroshot", "task=toy_kitchen_clips",
        f"checkpoint={tmp_path}/checkpoint_last.pt", f"task.dataset.features={kitchen.features}",
        f"task.dataset.annotations={kitchen.root}/test_clips.jsonl", f"task.dataset.tokenizer={kitchen.root}/tokenizer",
        "--json", tmp_path / "metrics.json", "--profile", "cpu", "slurm.cpus_per_task=1", "--wait", cwd=tmp_path,
    )  # fmt: skip
    assert json.loads((tmp_path / "metrics.json").read_text())["metrics"]["t2v_recall@10"] >= 0


def test_each_key_of_a_profile_reaches_sbatch(slurm, tmp_path, monkeypatch):
    """A job that is held, in spite of what sbatch's variables say. `mmpt jobs` has the reason and how to stop it."""
    now = {"starttime": "now", "duration": "10", "users": "root", "nodes": "node1", "flags": "maint,ignore_jobs"}
    slurm.command("scontrol", "create", "reservation=icml", *(f"{key}={value}" for key, value in now.items()))
    extra = {"reservation": "icml", "exclusive": True, "mail-type": "END,FAIL", "mail-user": "me@example.org"}
    extra |= {"comment": "it's $HOME; #1", "hold": True}
    profile = {"gres": "gpu:a100:4", "mem_gb": "none", "cpus_per_task": 1, "partition": "main", "extra": extra}
    (tmp_path / "mine.yaml").write_text(json.dumps(profile))
    (tmp_path / "video.mp4").touch()
    monkeypatch.setenv("SBATCH_PARTITION", "urgent")
    monkeypatch.setenv("SBATCH_TIMELIMIT", "7")
    words = ["mmpt", "launch", "extract", "video.mp4", "--encoder", "s3d", "--out", "out", "--profile", "mine.yaml"]
    run(*words, cwd=tmp_path)
    try:
        (job,) = json.loads(run("mmpt", "jobs", "--json", cwd=tmp_path).stdout)
        shown = slurm.command("scontrol", "show", "job", job["job"])
        for words in (
            "Partition=main", "TresPerNode=gres:gpu:a100:4", "Reservation=icml", "OverSubscribe=NO",
            "TimeLimit=01:00:00", "MailType=END,FAIL", "MailUser=me@example.org", "Comment=it's $HOME; #1",
        ):  # fmt: skip
            assert words in shown
        assert (job["state"], job["why"], job["stop"]) == ("PENDING", "JobHeldUser", f"scancel {job['job']}")
        slurm.command(*job["stop"].split())
        assert json.loads(run("mmpt", "jobs", "--json", cwd=tmp_path).stdout)[0]["state"] == "CANCELLED"
    finally:
        slurm.command("scontrol", "delete", "reservation=icml")


def test_what_slurm_refuses_is_one_line(slurm, tmp_path):
    (tmp_path / "video.mp4").touch()
    words = ["launch", "extract", "video.mp4", "--encoder", "s3d", "--out", "out", "--profile", "cpu"]
    done = run("mmpt", *words, "slurm.extra.reservation=nowhere", cwd=tmp_path, check=False)
    assert (done.returncode, done.stderr.count("\n")) == (2, 1)
    assert "SLURM refuses the job: sbatch: error: Batch job submission failed: Requested reservation" in done.stderr


def test_a_task_has_all_its_cores(slurm, tmp_path):
    """On a node that binds tasks to cores; `python` is a command that counts them."""
    (tmp_path / "video.mp4").touch()
    run(
        "mmpt", "launch", "extract", "video.mp4", "--encoder", "s3d", "--out", "out", "--profile", "cpu",
        "slurm.mem_gb=0", "slurm.partition=bound", f"slurm.cpus_per_task={NUM_CPUS}",
        "slurm.python=sh -c 'unset OMP_NUM_THREADS; nproc'", cwd=tmp_path,
    )  # fmt: skip
    (job,) = json.loads(run("mmpt", "jobs", "--json", cwd=tmp_path).stdout)
    wait_until(lambda: slurm.job_state(job["job"]) == "COMPLETED", "the job")
    assert Path(job["log"]).read_text().splitlines()[-1] == str(NUM_CPUS)
