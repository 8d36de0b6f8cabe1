"""Submitted jobs: their state, progress and logs."""

import json
import subprocess
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from submitit import LocalJob, SlurmJob

from mmpt_plugin.files import atomic_write, read_json
from mmpt_plugin.launch.local import MODULE
from mmpt_plugin.report.curve import records
from mmpt_plugin.shards.plain_pickle import read_plain_pickle

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
        if not path.is_file():
            return None
        try:
            return cls(**read_json(path))
        except TypeError as error:
            raise ValueError(f"{path} is not the record of a job: {error}") from error


@dataclass(frozen=True)
class JobStatus:
    """What is known of a launched job; a value is None if there is none yet."""

    folder: str
    job: str
    state: str
    """SLURM's word for it, such as RUNNING."""
    why: str
    """The error of a failed job, or the reason for which a job waits."""
    epoch: int | None
    update: int | None
    loss: float | None
    pairs_per_second: float | None
    log: str
    """The output of the first task."""
    stop: str
    """The command that stops the job; empty if it is over."""


def job_statuses(root: Path) -> list[JobStatus]:
    """The jobs in the folders below `root`, newest first."""
    paths = sorted(root.rglob(RECORD), key=lambda path: path.stat().st_mtime, reverse=True)
    jobs = list(filter(None, map(Launched.read, (path.parent for path in paths))))
    found = []
    for job, (now, reason) in zip(jobs, states_and_reasons(jobs), strict=True):
        why = reason if now in WAITING else failure(job, now)
        last = progress(Path(job.folder) / "train.log")
        stop = "" if is_over(now) else stop_command([job])
        found.append(JobStatus(job.folder, job.job_id, now, why, *last, log=str(job.log), stop=stop))
    return found


def stop_command(jobs: Sequence[Launched]) -> str:
    """The shell command that stops the jobs; all members of an array have one number."""
    numbers = dict.fromkeys(job.job_id.partition("_")[0] if len(jobs) > 1 else job.job_id for job in jobs)
    return " ".join(["scancel" if jobs[0].executor == "slurm" else "kill", *numbers])


def progress(log: Path) -> tuple[int | None, int | None, float | None, float | None]:
    """Epoch, update, loss and pairs per second of the newest training line in fairseq's log, or None for each."""
    for record in reversed(list(records(log))) if log.is_file() else ():
        if "num_updates" in record:
            rate = float(record.get("ups", 0)) * float(record.get("bsz", 0))
            return int(record["epoch"]), int(record["num_updates"]), float(record["loss"]), rate
    return None, None, None, None


def state(job: Launched) -> str:
    """The state of one job; see `states_and_reasons`."""
    return states([job])[0]


def states(jobs: Sequence[Launched]) -> list[str]:
    """The states of jobs; see `states_and_reasons`."""
    return [now for now, _ in states_and_reasons(jobs)]


def states_and_reasons(jobs: Sequence[Launched]) -> list[tuple[str, str]]:
    """Each job's state and, if it waits, SLURM's reason.

    From the result files if SLURM no longer lists the job, or for a local job; otherwise from SLURM's accounting.
    """
    queued = from_squeue([job.job_id for job in jobs if job.executor == "slurm"])
    found = [queued.get(job.job_id) or (of_files(job), "") for job in jobs]
    unknown = [job.job_id for job, (now, _) in zip(jobs, found, strict=True) if not now]
    accounted = from_sacct(unknown)
    return [
        (now or accounted.get(job.job_id, "UNKNOWN"), reason) for job, (now, reason) in zip(jobs, found, strict=True)
    ]


def of_files(job: Launched) -> str:
    """The state of a job as seen on this machine; empty for a job of SLURM that left no results."""
    if job.executor == "local" and is_controller(int(job.job_id)):
        return "RUNNING" if job.log.exists() else "PENDING"
    return from_results(job) or ("INTERRUPTED" if job.executor == "local" else "")


def is_over(job_state: str) -> bool:
    """Whether a job in this state can no longer run; also True for an unknown state."""
    return job_state not in (*WAITING, *ACTIVE)


def from_squeue(job_ids: Sequence[str]) -> dict[str, tuple[str, str]]:
    """The states of queued or recent jobs, and the reasons for which they wait; without those SLURM does not list."""
    words = ["squeue", "--noheader", "--array", "--states=all", "--format", "%i|%T|%r", "--jobs", ",".join(job_ids)]
    return {number: (now, reason) for number, now, reason in asked(words)} if job_ids else {}


def from_sacct(job_ids: Sequence[str]) -> dict[str, str]:
    """The states in SLURM's accounting, without what follows the word, as in `CANCELLED by 1000`."""
    words = ["sacct", "--noheader", "--parsable2", "--allocations", "--format", "JobID,State", "--jobs"]
    return {number: now.split()[0] for number, now in asked([*words, ",".join(job_ids)]) if now} if job_ids else {}


def asked(words: list[str]) -> list[list[str]]:
    """The fields of each line of a command's output; empty if the command fails or is missing."""
    try:
        done = subprocess.run(words, text=True, capture_output=True, check=False, timeout=60)
    except (FileNotFoundError, subprocess.TimeoutExpired):
        return []
    return [line.split("|") for line in done.stdout.splitlines()] if done.returncode == 0 else []


def from_results(job: Launched) -> str:
    """FAILED if a task wrote an error, COMPLETED if all wrote results, otherwise empty."""
    found = [outcome for outcome, _ in results(job)]
    if "error" in found:
        return "FAILED"
    return "COMPLETED" if len(found) == job.tasks else ""


def failure(job: Launched, now: str) -> str:
    """The last line of the error that ended the job; of its log, if it has failed and no task wrote an error."""
    for outcome, value in results(job):
        if outcome == "error":
            return last_line(str(value))
    return last_line(job.log.read_text(errors="replace")) if now == "FAILED" and job.log.exists() else ""


def last_line(text: str) -> str:
    """The last line with words; empty if there is none."""
    return next((line for line in reversed(text.splitlines()) if line.strip(" -")), "")


def results(job: Launched) -> Iterator[tuple[str, Any]]:
    """`success` and a value, or `error` and its traceback, of each task that wrote one.

    submitit would unpickle any object: a folder of runs that someone shares could run code.
    """
    kind: Any = SlurmJob if job.executor == "slurm" else LocalJob
    for number in range(job.tasks):
        task = kind(folder=job.logs, job_id=job.job_id, tasks=[number])
        if (path := task.paths.result_pickle).exists():
            content = read_plain_pickle(path)
            if not (isinstance(content, tuple) and len(content) == 2):
                raise ValueError(f"{path} is not a result of submitit")
            yield content


def is_controller(pid: int) -> bool:
    """Whether the process that runs a local job still exists; its pid may belong to another process by now."""
    process = Path(f"/proc/{pid}")
    try:
        state = (process / "stat").read_text().rpartition(")")[2].split()[0]
        words = (process / "cmdline").read_bytes()
    except OSError:
        return False
    # A process that has ended but was not waited for has state Z; one that is starting has an empty command line.
    return state != "Z" and (not words or MODULE.encode() in words)
