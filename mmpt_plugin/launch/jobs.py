"""The jobs: importable classes that submitit calls in every task, and again after a requeue."""

import logging
import multiprocessing
import os
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

from mmpt_plugin.errors import first_line
from mmpt_plugin.hardware import gpu_problems
from mmpt_plugin.launch.survival import (
    INTERRUPTED,
    flush_and_exit,
    is_out_of_space,
    leave,
    note_start,
    peer_is_gone,
    reaches_slurm,
    starts_before,
    stops_on_job_signals,
)

logger = logging.getLogger(__name__)


@dataclass
class TrainingJob:
    """Trains a project with all tasks of a job, one per GPU; if interrupted, it saves, is requeued and resumes."""

    project: dict[str, Any]
    """The resolved configuration, the same as `mmpt train` runs."""
    signal_seconds: int
    """Seconds before the time limit at which the job is signalled."""

    def __call__(self) -> None:
        env = JobEnvironment()
        if env.cluster == "local":  # submitit ignores it; until training starts, there is nothing to save
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
        if not reaches_slurm(env):  # submitit's handler would fail
            signal.signal(signal.SIGUSR2, lambda *_: flush_and_exit(INTERRUPTED))
        # Imported here because submitit also imports the class on the login node, and only training needs fairseq.
        from mmpt_plugin.fairseq_bridge import preemption
        from mmpt_plugin.fairseq_bridge.train import train_rank

        env.paths.result_pickle.unlink(missing_ok=True)  # left by an earlier start
        common = self.project.get("common") or {}
        if problems := list(gpu_problems(bf16=bool(common.get("bf16")))):
            raise ValueError("; ".join(problems))
        with stops_on_job_signals(env, self.signal_seconds, on_signal=preemption.request) as listener:
            try:
                if env.global_rank == 0:
                    note_start(Path(self.project["checkpoint"]["save_dir"]), env)
                finished = train_rank(self.project, rank_info(env))
            except Exception as error:
                if is_out_of_space(error) and env.cluster == "slurm":  # the batch script waits for space
                    logger.error("%s", first_line(error))
                    flush_and_exit(INTERRUPTED)
                if peer_is_gone(error):
                    leave(env, error)
                raise
            finally:
                for worker in multiprocessing.active_children():  # loader workers, which inherit our SIGTERM handler
                    worker.kill()
        if not finished:
            listener.exit_for_requeue()

    def checkpoint(self) -> DelayedSubmission:
        """The job that submitit requeues: the same one, which resumes from its newest complete checkpoint."""
        return DelayedSubmission(self)


@dataclass
class CommandJob:
    """Runs an `mmpt` command that skips finished work when it runs again, such as extraction or evaluation.

    Of a job's tasks only the first one does.
    """

    words: list[str]

    def __call__(self) -> None:
        env = JobEnvironment()
        env.paths.result_pickle.unlink(missing_ok=True)
        if env.global_rank > 0:
            return
        if not reaches_slurm(env):  # where submitit's handler would fail; the command ends by the same signal
            signal.signal(signal.SIGUSR2, lambda *_: None)
        status = self.run(alone=env.cluster == "local")
        if status > 0 or status == -signal.SIGKILL:
            why = "it was killed, perhaps out of memory" if status < 0 else f"exit status {status}"
            raise RuntimeError(f"mmpt {' '.join(self.words)}: {why}")
        if status:  # SLURM signals the subprocess too; submitit's handler may be about to requeue the job
            time.sleep(5)
            flush_and_exit(INTERRUPTED)

    def run(self, *, alone: bool) -> int:
        """Run the command and return its status. If only this process is signalled (`alone`), SIGTERM stops both."""
        command = [sys.executable, "-m", "mmpt_plugin.cli", *self.words]
        with subprocess.Popen(command, process_group=0 if alone else None) as process:

            def stop(*_: object) -> None:
                os.killpg(process.pid, signal.SIGTERM)
                flush_and_exit(1)

            if alone:
                signal.signal(signal.SIGTERM, stop)
            try:
                return process.wait()
            except BaseException:  # submitit's handler leaves, for a restart
                process.kill()
                raise

    def checkpoint(self) -> DelayedSubmission:
        """The job that submitit requeues: the same command, which skips what is finished."""
        return DelayedSubmission(self)


def rank_info(env: JobEnvironment) -> Any:
    """This task's rank, device and rendezvous address, from the job's environment."""
    from mmpt_plugin.fairseq_bridge.train import RankInfo

    return RankInfo(
        rank=env.global_rank,
        world_size=env.num_tasks,
        device=env.local_rank % max(1, torch.cuda.device_count()),  # a task sees all GPUs of its node, or only its own
        init_method=f"tcp://{env.hostnames[0]}:{port(env)}",
    )


def port(env: JobEnvironment) -> int:
    """A port for this job, below the kernel's ephemeral range; it differs at each start, in case it is still in use."""
    return 12000 + (int(env.raw_job_id) + 7919 * starts_before()) % 20000
