"""Submitted jobs: their state, progress and logs."""

import json
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from submitit import LocalJob, SlurmJob

from mmpt_plugin.files import atomic_write
from mmpt_plugin.report.curve import records

RECORD = "job.json"
WAITING = ("PENDING", "CONFIGURING", "REQUEUED", "REQUEUE_HOLD", "SUSPENDED", "RESIZING")
ACTIVE = ("RUNNING", "COMPLETING", "SIGNALING", "STAGE_OUT")


@dataclass(frozen=True)
class Launched:
    """A submitted job, recorded in the folder that it writes to."""

    folder: str
    job_id: str
    """SLURM's job id; a member of an array has the form 1234_5."""
    executor: str
    tasks: int
    logs: str
    """The folder of submitit's files: the batch script, the output of each task, the results."""
    words: list[str]
    """The equivalent `mmpt` command without SLURM."""
    inputs: str = ""
    """A digest of the command's inputs that are not part of its words."""

    @property
    def log(self) -> Path:
        """The output of the first task."""
        return Path(self.logs) / f"{self.job_id}_0_log.out"

    def write(self) -> None:
        """Write the record to `job.json` in the job's folder, which is created if needed."""
        folder = Path(self.folder)
        folder.mkdir(parents=True, exist_ok=True)
        atomic_write(folder / RECORD, lambda path: path.write_text(json.dumps(asdict(self), indent=2) + "\n"))

    @classmethod
    def read(cls, folder: Path) -> "Launched | None":
        """The record in a folder; None if there is none."""
        path = folder / RECORD
        return cls(**json.loads(path.read_text())) if path.is_file() else None


def describe_jobs(root: Path) -> Iterator[str]:
    """A few lines for each job in the folders below `root`, newest first."""
    paths = sorted(root.rglob(RECORD), key=lambda path: path.stat().st_mtime, reverse=True)
    for job in filter(None, map(Launched.read, (path.parent for path in paths))):
        last = progress(Path(job.folder) / "train.log")
        yield "  ".join([job.folder, f"job {job.job_id}", state(job), *(f"{key} {last[key]}" for key in last)])
        if why := failure(job):
            yield f"    {why}"
        yield f"    log {job.log}"


def progress(log: Path) -> dict[str, str]:
    """The values of the newest training line in fairseq's log; empty if there is none."""
    if not log.is_file():
        return {}
    for record in reversed(list(records(log))):
        if "num_updates" in record:
            rate = float(record.get("ups", 0)) * float(record.get("bsz", 0))
            return {
                "epoch": str(record["epoch"]),
                "update": str(record["num_updates"]),
                "loss": str(record["loss"]),
                "pairs/s": f"{rate:.0f}",
            }
    return {}


def state(job: Launched) -> str:
    """The state from SLURM; from the result files if SLURM no longer lists the job, or for a local job."""
    if job.executor == "slurm":
        return from_squeue(job.job_id) or from_results(job) or from_sacct(job.job_id) or "UNKNOWN"
    return "RUNNING" if is_controller(int(job.job_id)) else from_results(job) or "INTERRUPTED"


def is_over(job_state: str) -> bool:
    """Whether a job in this state can no longer run; also True for an unknown state."""
    return job_state not in (*WAITING, *ACTIVE)


def from_squeue(job_id: str) -> str:
    """The state of a queued or recent job; empty if SLURM no longer lists it."""
    words = ["squeue", "--noheader", "--states=all", "--jobs", job_id, "--format", "%T"]
    return first_word(words)


def from_sacct(job_id: str) -> str:
    """The state in SLURM's accounting; empty if there is none."""
    return first_word(["sacct", "--noheader", "--parsable2", "--allocations", "--jobs", job_id, "--format", "State"])


def first_word(words: list[str]) -> str:
    """The first word of a command's output, as of `CANCELLED by 1000`; empty if the command fails or is missing."""
    try:
        done = subprocess.run(words, text=True, capture_output=True, check=False, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.split()[0] if done.returncode == 0 and done.stdout.split() else ""


def from_results(job: Launched) -> str:
    """FAILED if a task wrote an error, COMPLETED if all wrote results, otherwise empty."""
    if any(task.exception() is not None for task in results(job)):
        return "FAILED"
    return "COMPLETED" if len(list(results(job))) == job.tasks else ""


def failure(job: Launched) -> str:
    """The last line of the error that ended the job."""
    for task in results(job):
        if error := task.exception():
            lines = [line for line in str(error).split("\n-----")[1].splitlines() if line.strip(" -")]
            return lines[-1]
    return ""


def results(job: Launched) -> Iterator[Any]:
    """The tasks that wrote a result or an error."""
    kind: Any = SlurmJob if job.executor == "slurm" else LocalJob
    for number in range(job.tasks):
        task = kind(folder=job.logs, job_id=job.job_id, tasks=[number])
        if task.paths.result_pickle.exists():
            yield task


def is_controller(pid: int) -> bool:
    """Whether the process that runs a local job still exists; its pid may belong to another process by now."""
    process = Path(f"/proc/{pid}")
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        words = (process / "cmdline").read_bytes()
    except OSError:
        return False
    # A process that has ended but was not waited for has state Z; one that is starting has an empty command line.
    return state != "Z" and (not words or b"submitit.local" in words)
