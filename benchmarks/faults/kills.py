"""Kill a command at a moment, look at what it left, run it again, and compare with the undisturbed run."""

import re
import signal
from dataclasses import dataclass, field, fields

import numpy as np

from benchmarks.faults.jobs import SAVE_INTERVAL, Job, repeated_updates
from benchmarks.faults.processes import ended, finish, signal_group, start

COLD = 10  # every tenth process is a new interpreter, whose start counts too
# SIGINT is sent twice: the second one interrupts what the command does after the first.
SIGNALS = (signal.SIGKILL, signal.SIGKILL, signal.SIGTERM, signal.SIGINT)
SECOND_SIGNAL_WITHIN = 1.5  # seconds
# Python goes on after a signal that arrives while it deletes an object, and prints this.
IGNORED = re.compile(r"Exception ignored in[^\n]*\nTraceback")


@dataclass
class Found:
    """How many kills, faults or pairs of processes there were, and what was wrong after them."""

    number: int = 0
    late: int = 0
    """Those that came after the end of the process."""
    half_written: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    wrong_results: list[str] = field(default_factory=list)
    unclear: list[str] = field(default_factory=list)
    """Commands that did not end with one clear line."""
    leftovers: list[str] = field(default_factory=list)
    """Hidden files that the next run left."""

    def merge(self, other: "Found") -> None:
        """Add what was found by another."""
        for part in fields(self):
            setattr(self, part.name, getattr(self, part.name) + getattr(other, part.name))

    def problems(self) -> dict[str, list[str]]:
        """The problems of each kind."""
        return {name: value for name, value in vars(self).items() if isinstance(value, list)}


def kill_often(job: Job, number: int, rng: np.random.Generator) -> Found:
    """Kill a command at moments that are spread over its whole run, from the start to the exit.

    A kill that comes after the end, because this run was faster, is repeated earlier.
    """
    found = Found()
    duration = {cold: job.seconds(cold=cold) for cold in {False, number >= COLD}}
    moments = ((rng.permutation(number) + rng.uniform(size=number)) / max(number, 1)).tolist()
    for i, moment in enumerate(moments):
        cold = number >= COLD and i % COLD == COLD - 1
        sent = SIGNALS[int(rng.integers(len(SIGNALS)))]
        one = kill_once(job, moment * duration[cold], sent, rng, cold=cold, older=i % 2 == 1)
        if one.late and len(moments) < 2 * number:
            moments.append(float(rng.uniform(0, moment)))
        found.merge(one)
    return found


def kill_once(
    job: Job, moment: float, sent: signal.Signals, rng: np.random.Generator, *, cold: bool = False, older: bool = False
) -> Found:
    """Kill a command after `moment` seconds, then see `check`."""
    job.begin(older=older)
    pid = start(job.words, job.log, cold=cold)
    status = ended(pid, moment)
    if status is None:
        signal_group(pid, sent)
        status_then = ended(pid, float(rng.uniform(0, SECOND_SIGNAL_WITHIN))) if sent == signal.SIGINT else None
        if status_then is None:
            signal_group(pid, sent)
            finish(pid)
    where, text = f"{job.name}, {sent.name} at {moment:.3f} s{', cold' if cold else ''}", job.log_text()
    found = check(job, where, older=older)
    found.number, found.late = int(status is None), int(status is not None)
    shown = IGNORED.sub("", text).partition("Traceback")
    if shown[1] and not cold:  # Python itself prints one for a signal during its start
        found.unclear.append(f"{where}: {shown[0][-200:]}{shown[2][-500:]}")
    return found


def check(job: Job, where: str, *, older: bool) -> Found:
    """Check what a disturbed run left, run the command again, and compare."""
    found = Found()
    found.half_written += [f"{where}: {problem}" for problem in job.half_written()]
    if older:
        found.lost += [f"{where}: {name} is gone" for name in job.lost()]
    if status := job.run():
        found.wrong_results.append(f"{where}: the next run ended with {status}: {job.log_text()[-300:]}")
    found.wrong_results += [f"{where}: {difference}" for difference in job.differences()]
    repeated = repeated_updates(job.out / "train.log")
    if len(repeated) > SAVE_INTERVAL:
        found.wrong_results.append(f"{where}: updates {repeated} are repeated")
    found.leftovers += [f"{where}: {path}" for path in job.leftovers()]
    return found
