"""When a job is restarted, and which errors mean that another rank is gone."""

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("submitit")

from mmpt_plugin.launch.survival import STARTS_WITHOUT_PROGRESS, note_start, peer_is_gone, requeue_lines


@pytest.fixture
def env(monkeypatch) -> Any:
    from submitit.core.utils import JobPaths
    from submitit.slurm.slurm import SlurmJobEnvironment

    monkeypatch.setenv("SLURM_JOB_ID", "12")
    monkeypatch.setenv("SUBMITIT_FOLDER", "/logs")
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


def test_the_batch_script_asks_for_another_start_only_where_that_can_help(tmp_path):
    """The lines after srun, in a real bash, with a stand-in for scontrol that notes that it was called."""
    tools = tmp_path / "bin"
    tools.mkdir()
    (tools / "scontrol").write_text(f"#!/bin/sh\necho $@ >> {tmp_path}/asked\n")
    (tools / "squeue").write_text("#!/bin/sh\necho $STATE\n")
    for tool in tools.iterdir():
        tool.chmod(0o755)

    def requeued(status: int, *, state: str = "RUNNING", result: str = "", folder: Path = tmp_path) -> bool:
        (tmp_path / "asked").unlink(missing_ok=True)
        for old in tmp_path.glob("*_result.pkl"):
            old.unlink()
        if result:
            (tmp_path / result).touch()
        script = "\n".join([f"(exit {status})", *requeue_lines(folder)])
        done = subprocess.run(
            ["bash", "-c", script], check=False, capture_output=True,
            env=os.environ | {"PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "12", "STATE": state},
        )  # fmt: skip
        assert done.returncode == status
        return (tmp_path / "asked").exists()

    assert requeued(137)
    assert not requeued(0)
    assert not requeued(1, result="12_3_result.pkl")
    assert requeued(1, result="13_0_result.pkl"), "another job's"
    assert not requeued(143, state="CANCELLED")
    odd = tmp_path / 'a "$(touch hit)" [b]'
    odd.mkdir()
    (odd / "12_0_result.pkl").touch()
    assert not requeued(1, folder=odd), "the folder's name is no pattern, and nothing for the shell"
    assert not requeued(137, folder=Path("/dev/full")), "nothing can be written"
