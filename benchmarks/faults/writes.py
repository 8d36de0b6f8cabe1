"""Let one write, rename or opening of a file of a command fail, then run the command again."""

import errno
import os
import re
import struct

import numpy as np

from benchmarks.faults.jobs import Job
from benchmarks.faults.kills import Found, check
from benchmarks.faults.processes import finish, start

KINDS = {"full": errno.ENOSPC, "io": errno.EIO, "readonly": errno.EROFS, "rename": errno.EACCES}
RECORD = struct.Struct("q1024s")


def fail_often(job: Job, number: int | None, rng: np.random.Generator) -> Found:
    """Let `number` calls of each kind fail in turn, chosen by `rng`; None for all of them."""
    found = Found()
    for kind in KINDS:
        for older in {False, bool(job.before)}:
            total = count(job, kind, older=older)
            calls = np.arange(1, total + 1)
            chosen = calls if number is None or number >= total else np.sort(rng.choice(calls, number, replace=False))
            for nth in chosen.tolist():
                found.merge(fail_once(job, kind, nth, older=older))
    return found


def count(job: Job, kind: str, *, older: bool = False) -> int:
    """The number of calls that could fail in an undisturbed run."""
    job.begin(older=older)
    return run_with_fault(job, kind, 0)[1]


def run_with_fault(job: Job, kind: str, nth: int) -> tuple[int, int, str]:
    """Run with a fault; return the exit status, the number of calls, and the call that failed."""
    record = job.folder / "record"
    record.write_bytes(bytes(RECORD.size))
    environment = {
        "FAULT_FOLDER": str(job.out.parent),
        "FAULT_KIND": kind,
        "FAULT_NTH": str(nth),
        "FAULT_COUNTER": str(record),
    }
    status = finish(start(job.words, job.log, environment=environment))
    calls, first = RECORD.unpack(record.read_bytes())
    return status, calls, first.split(b"\0")[0].decode()


def fail_once(job: Job, kind: str, nth: int, *, older: bool = False) -> Found:
    """Let the nth call fail, check what the command says, then see `check`."""
    job.begin(older=older)
    status, _, call = run_with_fault(job, kind, nth)
    where = f"{job.name}, {kind} {nth} ({call.replace(str(job.out.parent), '')})"
    problem, silent = unclear(job, status, KINDS[kind]), [] if status else job.differences()
    found = check(job, where, older=older)
    found.number = int(bool(call))
    if call and problem:
        found.unclear.append(f"{where}: {problem}")
    found.wrong_results += [f"{where}: status 0, but {difference}" for difference in silent]
    return found


def unclear(job: Job, status: int, error: int) -> str | None:
    """What is wrong with the message of a command whose write has failed; None if nothing is.

    A command may succeed: a file that could not be removed, or a hint for later, changes no result.
    """
    text, reason = job.log_text(), os.strerror(error).lower()
    lines = [line for line in re.split(r"[\r\n]+", text) if line.startswith(f"mmpt {job.words[0]}: ")]
    if "Traceback" in text:
        return f"a traceback: {text.strip().splitlines()[-1]}"
    if status == 0:
        return None
    if len(lines) != 1:
        return f"{len(lines)} lines, status {status}: {text[-300:]}"
    if reason not in lines[0].lower() or str(job.out.parent) not in lines[0]:
        return f"no file, or no reason: {lines[0]}"
    return None
