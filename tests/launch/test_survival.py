"""When a job is restarted, and which errors mean that another rank is gone."""

import errno
import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("submitit")

from mmpt_plugin.errors import chain
from mmpt_plugin.launch.survival import (
    STARTS_WITHOUT_PROGRESS,
    is_out_of_space,
    note_start,
    peer_is_gone,
    requeue_lines,
)


@pytest.fixture
def env(monkeypatch, tmp_path) -> Any:
    from submitit.core.utils import JobPaths
    from submitit.slurm.slurm import SlurmJobEnvironment

    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SUBMITIT_FOLDER", str(tmp_path))
    assert isinstance(SlurmJobEnvironment().paths, JobPaths)
    return SlurmJobEnvironment()


def test_a_job_that_gets_nowhere_is_not_started_for_ever(tmp_path, env):
    for _ in range(STARTS_WITHOUT_PROGRESS):
        note_start(tmp_path, env)
    with pytest.raises(RuntimeError, match="5 consecutive starts wrote no checkpoint"):
        note_start(tmp_path, env)


def test_a_checkpoint_between_two_starts_is_progress(tmp_path, env):
    for number in range(3 * STARTS_WITHOUT_PROGRESS):
        if number % 4 == 0:
            (tmp_path / "checkpoint_last.pt").write_text(str(number))
        note_start(tmp_path, env)


def test_a_run_that_is_launched_again_begins_to_count_anew(tmp_path, env, monkeypatch):
    for job in ("12", "13", "14"):
        monkeypatch.setenv("SLURM_JOB_ID", job)
        for _ in range(STARTS_WITHOUT_PROGRESS - 1):
            note_start(tmp_path, env)


def test_a_torn_line_stops_no_later_start(tmp_path, env, caplog):
    """A kill in the middle of a write; the next start begins a new line."""
    note_start(tmp_path, env)
    path = tmp_path / "starts.jsonl"
    path.write_text(path.read_text()[:-20])
    for _ in range(STARTS_WITHOUT_PROGRESS):
        note_start(tmp_path, env)
    assert "starts.jsonl:1 is incomplete and skipped" in caplog.text
    with pytest.raises(RuntimeError, match="5 consecutive starts"):
        note_start(tmp_path, env)


@pytest.mark.parametrize(
    ("error", "gone"),
    [
        (RuntimeError("[gloo/transport/tcp/pair.cc:547] Connection closed by peer [127.0.0.1]"), True),
        (torch.distributed.DistNetworkError("Failed to recv, got 0 bytes. Connection was likely closed."), True),
        (RuntimeError("NCCL communicator was aborted on rank 3."), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
        (torch.cuda.OutOfMemoryError("CUDA out of memory"), False),
        (ValueError("model.hidden_size 10 is not a multiple"), False),
    ],
)  # fmt: skip
def test_only_a_failed_collective_is_blamed_on_another_rank(error, gone):
    assert peer_is_gone(error) is gone


@pytest.mark.parametrize(("code", "full"), [(errno.ENOSPC, True), (errno.EDQUOT, True), (errno.EIO, False)])
def test_a_full_disk_or_a_used_up_quota_is_found_below_the_error_that_it_led_to(code, full):
    disk, saving = OSError(code, os.strerror(code)), RuntimeError("saving failed")
    saving.__cause__ = disk
    assert is_out_of_space(disk) is is_out_of_space(saving) is full
    assert not is_out_of_space(RuntimeError("no"))


def test_a_ring_of_errors_is_read_once():
    """As gRPC raises when Ctrl-C or a lost server interrupts it."""
    one, other = RuntimeError("one"), RuntimeError("other")
    one.__context__, other.__context__ = other, one
    assert list(chain(one)) == [one, other]
    assert not is_out_of_space(one)


@pytest.fixture
def ended(tmp_path):
    """Runs the batch script's lines after srun in a real bash, and returns whether they requeue the job.

    scontrol and squeue are stand-ins; so is sleep, which may run a command."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    (tools / "squeue").write_text("#!/bin/sh\necho $STATE\n")
    (tools / "sleep").write_text("#!/bin/sh\necho $1 >> $SLEPT; eval $MEANWHILE\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)

    def run(status: int, *, state: str = "RUNNING", folder: Path = tmp_path, meanwhile: str = "") -> bool:
        for name in ("asked", "slept"):
            (tmp_path / name).unlink(missing_ok=True)
        environment = {"SLURM_JOB_ID": "12", "STATE": state, "MEANWHILE": meanwhile, "SLEPT": f"{tmp_path}/slept"}
        run.done = subprocess.run(
            ["bash", "-c", "\n".join([f"(exit {status})", *requeue_lines(folder)])], check=False, capture_output=True,
            text=True, env=os.environ | environment | {"PATH": f"{tools}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert run.done.returncode == status
        slept = tmp_path / "slept"
        run.sleeps = len(slept.read_text().splitlines()) if slept.exists() else 0
        return (tmp_path / "asked").exists()

    return run


def test_the_batch_script_asks_for_another_start_only_where_that_can_help(ended, tmp_path):
    assert ended(137)
    assert not ended(0)
    (tmp_path / "13_0_result.pkl").touch()
    assert ended(1), "another job's result"
    (tmp_path / "12_3_result.pkl").touch()
    assert not ended(1)
    (tmp_path / "12_3_result.pkl").unlink()
    assert not ended(143, state="CANCELLED")
    odd = tmp_path / 'a "$(touch hit)" [b]'
    odd.mkdir()
    (odd / "12_0_result.pkl").touch()
    assert not ended(1, folder=odd), "the folder's name is no pattern, and nothing for the shell"


def test_a_job_whose_tasks_die_three_times_from_the_same_checkpoint_is_not_requeued(ended, tmp_path):
    came_from = tmp_path / "12_from"
    came_from.write_text("none\n")
    assert ended(137)
    assert ended(137)
    came_from.write_text("1700000000\n")  # it had made progress, and died again
    assert ended(139)
    assert ended(137)
    assert not ended(137)
    assert ended.done.stdout == "tasks died 3 times from the same checkpoint, now with status 137: not requeued\n"
    assert not ended(137)


def test_a_full_disk_is_waited_for_before_another_start(ended, tmp_path):
    """A file that can't be written, as its name is that of a folder, which goes away meanwhile or not."""
    (tmp_path / "12.space").mkdir()
    assert not ended(144)
    assert ended.sleeps == 60
    assert ended.done.stdout == f"no space left in {tmp_path}: not requeued\n"
    assert ended(144, meanwhile=f"rmdir {tmp_path}/12.space")
    assert ended.sleeps == 1
    assert not (tmp_path / "12.space").exists()
