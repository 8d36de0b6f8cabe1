"""What a job does: importable classes that submitit calls in every task, and calls again after a requeue."""

import multiprocessing
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from submitit import JobEnvironment
from submitit.helpers import DelayedSubmission

from mmpt_plugin.hardware import gpu_problems
from mmpt_plugin.launch.survival import (
    INTERRUPTED,
    flush_and_exit,
    leave,
    note_start,
    peer_is_gone,
    starts_before,
    stops_on_job_signals,
)


@dataclass
class TrainingJob:
    """A project trained by all tasks of a job, one a GPU; interrupted, it is saved, queued again and goes on."""

    project: dict[str, Any]
    """Resolved, as `mmpt train` would run it."""
    signal_seconds: int
    """How long before its end the job is told."""

    def __call__(self) -> None:
        # Here, since submitit reads the class on the login node too, and training alone needs fairseq.
        from mmpt_plugin.fairseq_bridge import preemption
        from mmpt_plugin.fairseq_bridge.train import train_rank

        env = JobEnvironment()
        env.paths.result_pickle.unlink(missing_ok=True)  # of an earlier start
        common = self.project.get("common") or {}
        if problems := list(gpu_problems(bf16=bool(common.get("bf16")))):
            raise ValueError("; ".join(problems))
        if env.global_rank == 0:
            note_start(Path(self.project["checkpoint"]["save_dir"]), env)
        with stops_on_job_signals(env, self.signal_seconds, on_signal=preemption.request) as listener:
            try:
                finished = train_rank(self.project, rank_info(env))
            except Exception as error:
                if peer_is_gone(error):
                    leave(env, error)
                raise
            finally:
                for worker in multiprocessing.active_children():  # of the loader; they take SIGTERM as we do
                    worker.kill()
        if not finished:
            listener.give_way()

    def checkpoint(self) -> DelayedSubmission:
        """What submitit queues again: the same job, which finds its newest whole checkpoint by itself."""
        return DelayedSubmission(self)


@dataclass
class CommandJob:
    """An `mmpt` command that skips what it has done when it is run again: extraction, evaluation."""

    words: list[str]

    def __call__(self) -> None:
        env = JobEnvironment()
        env.paths.result_pickle.unlink(missing_ok=True)
        status = subprocess.run([sys.executable, "-m", "mmpt_plugin.cli", *self.words], check=False).returncode
        if status > 0 or status == -signal.SIGKILL:
            why = "it was killed, perhaps for want of memory" if status < 0 else f"exit status {status}"
            raise RuntimeError(f"mmpt {' '.join(self.words)}: {why}")
        if status:  # SLURM's signals reach it as well; submitit's handler may be about to queue the job again
            time.sleep(5)
            flush_and_exit(INTERRUPTED)

    def checkpoint(self) -> DelayedSubmission:
        return DelayedSubmission(self)


def rank_info(env: JobEnvironment) -> Any:
    """This task's place in the run, from the job's environment alone."""
    from mmpt_plugin.fairseq_bridge.train import RankInfo

    return RankInfo(
        rank=env.global_rank,
        world_size=env.num_tasks,
        device=env.local_rank % max(1, torch.cuda.device_count()),  # a task sees its node's GPUs, or its own only
        init_method=f"tcp://{env.hostnames[0]}:{port(env)}",
    )


def port(env: JobEnvironment) -> int:
    """Of the job's own, below those that kernels hand out; another one at each start, lest it be taken."""
    return 12000 + (int(env.raw_job_id) + 7919 * starts_before()) % 20000
