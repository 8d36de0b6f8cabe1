"""How a training job handles signals, dead ranks and restarts.

| event | detected by | result |
| --- | --- | --- |
| the time limit is near (SIGUSR2), preemption or scancel (SIGTERM) | every task, `StopListener` | a checkpoint after \
the current update; rank 0 requeues the job, unless it was cancelled |
| no update ends before the limit | timers of the first and the last rank | requeued, from the last checkpoint |
| a task dies | srun, which ends the others; the batch script, `requeue_lines` | requeued, at most twice from the same \
checkpoint |
| the disk is full | the task that writes; the batch script | requeued when there is space, if within 10 minutes |
| a task raises an error | submitit, which writes the error to a file | the job fails with that error |
| a node dies | SLURM | requeued |
"""

import errno
import json
import logging
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from submitit import JobEnvironment
from submitit.local.local import LOCAL_REQUEUE_RETURN_CODE

from mmpt_plugin.errors import chain, first_line
from mmpt_plugin.signals import on_signals

logger = logging.getLogger(__name__)

# The exit status that requests a requeue from submitit's local controller and from `requeue_lines`.
INTERRUPTED = LOCAL_REQUEUE_RETURN_CODE

SIGNALS = (signal.SIGTERM, signal.SIGUSR2)

# A run that has started this many times from the same checkpoint is not started again.
STARTS_WITHOUT_PROGRESS = 5

# A job whose tasks have died this many times in a row, each time from the same checkpoint, is not requeued.
DEATHS = 3


class StopListener:
    """Handles SIGTERM and SIGUSR2 as a request to stop; replaces submitit's handler."""

    def __init__(self, env: JobEnvironment, signal_seconds: int, on_signal: Callable[[], None]) -> None:
        self.env, self.signal_seconds, self.on_signal = env, signal_seconds, on_signal
        self.submitit_handler = signal.getsignal(signal.SIGUSR2)
        self.signals: set[int] = set()

    def __call__(self, signum: int) -> None:
        first = not self.signals
        self.signals.add(signum)
        if not first:
            return
        logger.warning("%s: stopping after this update", signal.Signals(signum).name)
        self.on_signal()
        # The last rank, mostly on another node, requeues the job if rank 0 hangs too.
        share = {self.env.num_tasks - 1: 0.9, 0: 0.8}.get(self.env.global_rank)
        if share is not None and self.env.cluster == "slurm":
            timer = threading.Timer(share * self.signal_seconds, self.requeue)
            timer.daemon = True
            timer.start()

    def requeue(self) -> None:
        """Requeue the job if SLURM lists it as running; called if it has not stopped in time."""
        if not reaches_slurm(self.env):
            flush_and_exit(INTERRUPTED)
        if is_running(self.env):
            logger.warning("no update has ended in time: requeued, resumes from the last checkpoint")
            subprocess.run(["scontrol", "requeue", self.env.job_id], check=False)

    def exit_for_requeue(self) -> None:
        """Exit after the checkpoint; rank 0 requeues the job. No result is written, because it would mean job done."""
        if not reaches_slurm(self.env):
            flush_and_exit(INTERRUPTED if self.env.global_rank == 0 else 0)
        wanted = is_running(self.env) if self.env.cluster == "slurm" else signal.SIGUSR2 in self.signals
        status: object = 0
        if self.env.global_rank == 0 and wanted and callable(self.submitit_handler):
            try:
                self.submitit_handler(signal.SIGUSR2, None)
            except SystemExit as leaving:
                status = leaving.code
        flush_and_exit(status % 256 if isinstance(status, int) else 1)


@contextmanager
def stops_on_job_signals(
    env: JobEnvironment, signal_seconds: int, *, on_signal: Callable[[], None]
) -> Iterator[StopListener]:
    """In the block, signals are requests to stop. After the block they are ignored, also during interpreter shutdown,
    which would reset any other handler."""
    listener = StopListener(env, signal_seconds, on_signal)
    with on_signals(SIGNALS, listener, afterwards=signal.SIG_IGN):
        yield listener


def reaches_slurm(env: JobEnvironment) -> bool:
    """Whether this process can requeue its job. In a container it can't; the batch script does if rank 0 is
    INTERRUPTED."""
    return env.cluster != "slurm" or shutil.which("scontrol") is not None


def is_running(env: JobEnvironment) -> bool:
    """Whether SLURM lists the job as running. A cancelled or requeued job is not, even while its processes run."""
    words = ["squeue", "--noheader", "--jobs", env.raw_job_id, "--format", "%T"]
    return subprocess.run(words, text=True, capture_output=True, check=False).stdout.strip() == "RUNNING"


def requeue_lines(folder: Path, *, seconds: int = 10) -> list[str]:
    """Lines for the batch script, after srun, that requeue the job if tasks died and none wrote an error.

    If the disk is full, no task could write its error, and a restart would fail too: they wait for space, for at most
    60 times `seconds`. A job whose tasks have died DEATHS times from the same checkpoint is not requeued.
    """
    return [
        "status=$?",
        "id=${SLURM_ARRAY_JOB_ID:+${SLURM_ARRAY_JOB_ID}_$SLURM_ARRAY_TASK_ID}",
        "mine=${id:-$SLURM_JOB_ID}",
        'has_space() { head -c 65536 /dev/zero > "$mine.space"; }',
        f"if [ $status -ne 0 ] && cd {shlex.quote(str(folder))} \\",
        '    && ! compgen -G "${mine}_*_result.pkl" > /dev/null \\',
        '    && [ "$(squeue --noheader --jobs $SLURM_JOB_ID --format %T)" = RUNNING ]; then',
        f"  for _ in $(seq 60); do has_space && break; sleep {seconds}; done",
        '  from="from $(cat "${mine}_from")"; echo "$from" >> "${mine}_deaths"',
        f'  if [ $(tail -n {DEATHS} "${{mine}}_deaths" | grep -cxF "$from") = {DEATHS} ]; then',
        f'    echo "tasks died {DEATHS} times from the same checkpoint, now with status $status: not requeued"',
        "  elif has_space; then",
        "    scontrol requeue $SLURM_JOB_ID",
        "  else",
        '    echo "no space left in $PWD: not requeued"',
        "  fi",
        "fi",
        'rm -f "$mine.space"',
        "exit $status",
    ]


def peer_is_gone(error: Exception) -> bool:
    """Whether a collective failed because another rank is gone; that rank then reports the error."""
    if isinstance(error, torch.distributed.DistError):
        return True
    return isinstance(error, RuntimeError) and any(word in str(error) for word in ("gloo", "NCCL"))


def is_out_of_space(error: Exception) -> bool:
    """Whether an error, or one that led to it, is that a disk is full or a quota used up."""
    return any(isinstance(one, OSError) and one.errno in (errno.ENOSPC, errno.EDQUOT) for one in chain(error))


def leave(env: JobEnvironment, error: Exception) -> None:
    """End this process. The job restarts unless another rank writes an error within seconds."""
    logger.error("another rank is gone: %s", first_line(error))
    time.sleep(3)
    failed = any(env.paths.folder.glob(f"{env.job_id}_*_result.pkl"))
    flush_and_exit(1 if failed else INTERRUPTED)


def flush_and_exit(status: int) -> None:
    """End this process immediately, without exit handlers; buffered output is written."""
    logging.shutdown()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(status)


def note_start(folder: Path, env: JobEnvironment) -> None:
    """Append a line to starts.jsonl; RuntimeError if this job has started too often from the same checkpoint."""
    folder.mkdir(parents=True, exist_ok=True)
    last, path = folder / "checkpoint_last.pt", folder / "starts.jsonl"
    start = {
        "job": env.job_id,
        "start": starts_before(),
        "host": env.hostname,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "checkpoint_mtime_ns": last.stat().st_mtime_ns if last.exists() else None,
    }
    (env.paths.folder / f"{env.job_id}_from").write_text(f"{start['checkpoint_mtime_ns']}\n")  # for `requeue_lines`
    earlier = list(read_starts(path)) if path.exists() else []
    with path.open("a") as file:
        file.write("\n" * (not ends_with_line(path)) + json.dumps(start) + "\n")
    latest = [(e["job"], e["checkpoint_mtime_ns"]) for e in earlier[-STARTS_WITHOUT_PROGRESS:]]
    if latest == [(start["job"], start["checkpoint_mtime_ns"])] * STARTS_WITHOUT_PROGRESS:
        raise RuntimeError(
            f"{STARTS_WITHOUT_PROGRESS} consecutive starts wrote no checkpoint to {folder}; see the logs in "
            f"{env.paths.folder}"
        )


def read_starts(path: Path) -> Iterator[dict[str, Any]]:
    """The recorded starts. An incomplete line, from a kill or a full disk, is skipped with a warning."""
    for number, line in enumerate(path.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        try:
            start = json.loads(line)
            yield {key: start[key] for key in ("job", "checkpoint_mtime_ns")}
        except (ValueError, KeyError, TypeError):
            if line.strip():
                logger.warning("%s:%d is incomplete and skipped", path, number)


def ends_with_line(path: Path) -> bool:
    """Whether text can be appended on a new line; True for a missing or empty file."""
    content = path.read_bytes()[-1:] if path.exists() else b""
    return content in (b"", b"\n")


def starts_before() -> int:
    """How many times SLURM has requeued this job."""
    return int(os.environ.get("SLURM_RESTART_COUNT", 0))
