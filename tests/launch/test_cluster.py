"""Trainings and arrays on a real SLURM cluster of four nodes, with signals, preemption and failures."""

import json
import os
import random
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from mmpt_plugin.report.curve import records
from tests.conftest import TINY_ENCODER, run
from tests.launch.cluster import NUM_CPUS, wait_until
from tests.launch.training import EVENTS, SAVE_INTERVAL, SAVES, Run

pytestmark = [pytest.mark.slurm, pytest.mark.slow, pytest.mark.fairseq]

# To test more: SLURM_EVENTS=20 SLURM_SEED=1 pytest tests/launch/test_cluster.py -k everything
NUM_EVENTS, SEED = int(os.environ.get("SLURM_EVENTS", "6")), int(os.environ.get("SLURM_SEED", "0"))
NUM_EPOCHS = 10 if len(EVENTS) > NUM_EVENTS else 12 * NUM_EVENTS
LONG = [f"optimization.max_epoch={NUM_EPOCHS}", "task.dataset.pairs_per_video=16"]
"""12 updates an epoch on two nodes: long enough to be interrupted within an epoch."""


@pytest.fixture
def training(slurm, narrated, tmp_path) -> Iterator[Run]:
    yield Run(slurm, tmp_path / "run", narrated.project)
    slurm.command("scancel", "--user=root")


@pytest.fixture(scope="module")
def alone(slurm, narrated, tmp_path_factory) -> Run:
    """The long training on two nodes, left alone."""
    folder = tmp_path_factory.mktemp("straight") / "run"
    ended = Run(slurm, folder, narrated.project).launch(*LONG, *SAVES).ends("COMPLETED", seconds=60 * NUM_EPOCHS)
    assert [number for number, _ in ended.updates] == list(range(1, 12 * NUM_EPOCHS + 1))
    return ended


@pytest.fixture(scope="module")
def straight(alone) -> dict[int, float]:
    """Its loss by update."""
    return dict(alone.updates)


@pytest.fixture
def small_disk(training) -> Iterator[None]:
    """The training writes to a disk of its own."""
    training.folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", training.folder], check=True)
    yield
    subprocess.run(["umount", "--lazy", training.folder], check=True)


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
    wait_until(lambda: training.starts, "a start")
    training.resumes_after(lambda: None, "time limit", record_property)
    training.slurm.command("scontrol", "update", f"jobid={training.job_id}", "timelimit=10")
    training.ends("COMPLETED")
    numbers = [number for number, _ in training.updates]
    assert numbers == list(range(1, 361)), "an update was lost or made twice"
    for number, loss in training.updates[: len(straight)]:
        assert loss == pytest.approx(straight[number], abs=2e-4)


@pytest.mark.usefixtures("small_disk")
def test_a_job_survives_everything_in_random_order(training, alone, record_property):
    """It ends by itself, without being launched again, with the weights of the training that was left alone."""
    rng = random.Random(SEED)
    kinds = [kind for kind in EVENTS if kind != Run.time_limit or len(EVENTS) <= NUM_EVENTS]
    schedule = rng.sample(kinds, len(kinds)) + rng.choices(kinds, k=NUM_EVENTS - len(kinds))
    training.launch(*LONG, *SAVES, signal_seconds=20)
    for number, event in enumerate(schedule, start=1):
        made = training.updates[-1][0] if training.updates else 0
        training.wait_for_update(made + SAVE_INTERVAL + rng.randrange(1, SAVE_INTERVAL))
        happening = partial(event, training, rng.choice(training.nodes))
        training.resumes_after(happening, f"{number}: {event.__name__.replace('_', ' ')}", record_property)
        training.slurm.command("scontrol", "update", f"jobid={training.job_id}", "timelimit=60")
    training.ends("COMPLETED", seconds=60 * NUM_EPOCHS)
    assert training.starts == NUM_EVENTS + 1
    assert_same_curve(training, dict(alone.updates))
    numbers = [number for number, _ in training.updates]
    repeated = [before + 1 - after for before, after in pairwise(numbers) if after <= before]
    assert max(repeated, default=0) <= SAVE_INTERVAL
    assert len(repeated) <= sum(event not in (Run.preemption, Run.time_limit) for event in schedule)
    for name, weight in alone.weights.items():
        assert torch.equal(training.weights[name], weight), name


def test_a_job_whose_task_dies_three_times_from_the_same_checkpoint_fails(training):
    """Here from none, as soon as it has started."""
    training.launch(*LONG, *SAVES)
    for start in (1, 2, 3):
        wait_until(lambda: training.starts == start, f"start {start}")  # noqa: B023
        training.killed_task(training.nodes[1])
    training.ends("FAILED")
    assert training.starts == 3
    assert "tasks died 3 times from the same checkpoint" in run("mmpt", "jobs", training.folder).stdout


def test_a_cancelled_job_is_saved_and_not_started_again(training):
    training.launch(*LONG)
    training.wait_for_update(20)
    training.slurm.command("scancel", training.job_id)
    training.ends("CANCELLED")
    time.sleep(8)
    assert training.state == "CANCELLED"
    assert training.starts == 1
    assert (training.folder / "checkpoint_last.pt").exists()


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
    words = [*LONG, "optimization.max_epoch=12"]
    with ThreadPoolExecutor() as pool:  # at the same time, so that neither has ended when the other is launched
        both = list(pool.map(lambda job: job.launch(*words, exclude="node[3-4]"), (training, other)))
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
