"""A training on the cluster, and what can happen to it."""

import contextlib
import json
import os
import re
import signal
import time
from collections.abc import Callable
from pathlib import Path

import torch

from mmpt_plugin.checkpoint import read_torch_file
from mmpt_plugin.report.curve import records
from tests.conftest import run
from tests.launch.cluster import Cluster, wait_until

SAVE_INTERVAL = 5
SAVES = [f"checkpoint.save_interval_updates={SAVE_INTERVAL}", "checkpoint.keep_interval_updates=2"]


class Run:
    """A training launched into a folder."""

    def __init__(self, slurm: Cluster, folder: Path, project: Path) -> None:
        self.slurm, self.folder, self.project = slurm, folder, project

    def launch(self, *overrides: str, nodes: int = 2, **profile: object) -> "Run":
        keys = {"nodes": nodes, "hours": 0.2, "signal_seconds": 60} | profile
        path = self.folder.with_suffix(".yaml")
        path.write_text(json.dumps(keys))
        done = run(
            "mmpt", "launch", self.project, "--profile", path, f"checkpoint.save_dir={self.folder}", *overrides,
            cwd=self.folder.parent,
        )  # fmt: skip
        self.job_id = re.search(r"job (\d+)", done.stdout).group(1)
        return self

    @property
    def state(self) -> str:
        return self.slurm.job_state(self.job_id)

    @property
    def log(self) -> str:
        """What the batch script and the first task print."""
        path = self.folder / "slurm" / f"{self.job_id}_0_log.out"
        return path.read_text() if path.exists() else ""

    @property
    def updates(self) -> list[tuple[int, float]]:
        """Number and loss of every update, in the order in which they were made."""
        log = self.folder / "train.log"
        found = records(log) if log.exists() else ()
        return [(int(r["num_updates"]), float(r["loss"])) for r in found if "num_updates" in r]

    @property
    def starts(self) -> int:
        path = self.folder / "starts.jsonl"
        return len(path.read_text().splitlines()) if path.exists() else 0

    @property
    def weights(self) -> dict[str, torch.Tensor]:
        return read_torch_file(self.folder / "checkpoint_last.pt")["model"]

    def wait_for_update(self, number: int) -> None:
        wait_until(lambda: self.updates and self.updates[-1][0] >= number, f"update {number}")

    def ends(self, state: str, *, seconds: float = 240) -> "Run":
        wait_until(lambda: self.state in ("COMPLETED", "FAILED", "TIMEOUT", "CANCELLED"), state, seconds=seconds)
        assert self.state == state, self.log[-3000:]
        return self

    @property
    def nodes(self) -> list[str]:
        """Those on which it trains now."""
        names = self.slurm.command("squeue", "--noheader", "--jobs", self.job_id, "--format", "%N").strip()
        return self.slurm.command("scontrol", "show", "hostnames", names).split()

    def tasks_on(self, node: str) -> list[int]:
        """The processes that train there; srun, where the batch script runs, has the same words after its own."""
        words: dict[int, list[bytes]] = {}
        for pid in self.slurm.step_processes(node):
            with contextlib.suppress(OSError):
                words[pid] = Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")
        return [pid for pid, word in words.items() if b"python" in word[0] and b"submitit.core._submit" in word]

    def resumes_after(self, happening: Callable[[], object], what: str, record_property: Callable[..., None]) -> None:
        """The job starts again and trains on; the tests' summary says how long that took."""
        before, begin = self.starts, time.monotonic()
        happening()
        wait_until(lambda: self.starts > before, f"another start after {what}")
        made = len(self.updates)
        wait_until(lambda: len(self.updates) > made, f"an update after {what}")
        record_property(what, f"training again after {time.monotonic() - begin:.0f} s")

    # What can happen to it.

    def preemption(self, _: str) -> None:
        """Another job takes all CPUs of the nodes."""
        self.slurm.command("srun", "--partition=urgent", "--nodes=4", "--exclusive", "sleep", "1")

    def requeue(self, _: str) -> None:
        self.slurm.command("scontrol", "requeue", self.job_id)

    def node_failure(self, node: str) -> None:
        self.slurm.kill_node(node)
        self.slurm.start_node(node)

    def killed_task(self, node: str) -> None:
        self.signal_tasks(node, signal.SIGKILL)

    def signal_tasks(self, node: str, number: int) -> None:
        wait_until(lambda: self.tasks_on(node), f"a task on {node}")
        for task in self.tasks_on(node):
            os.kill(task, number)

    def stalled_task(self, node: str) -> None:
        """A task hangs when SLURM announces the end of the job."""
        self.signal_tasks(node, signal.SIGSTOP)
        time.sleep(2)  # until the other waits for it in a collective, where Python runs no signal handler
        self.slurm.command("scancel", "--signal=USR2", self.job_id)

    def full_disk(self, _: str) -> None:
        """No space is left until the tasks have ended, because they can't save."""
        nodes = self.nodes
        filler = self.folder / "filler"
        fill(filler)
        wait_until(lambda: not any(map(self.tasks_on, nodes)), "the tasks to end")
        filler.unlink()

    def time_limit(self, _: str) -> None:
        """SLURM signals the job before its time limit, which is 1 to 2 minutes away."""
        passed = self.slurm.command("squeue", "--noheader", "--jobs", self.job_id, "--format", "%M").strip()
        limit = int(passed.rpartition(":")[0].rpartition(":")[2]) + 2
        self.slurm.command("scontrol", "update", f"jobid={self.job_id}", f"timelimit={limit}")


EVENTS = {
    Run.preemption: 0,
    Run.time_limit: 0,
    Run.requeue: SAVE_INTERVAL,
    Run.node_failure: SAVE_INTERVAL,
    Run.killed_task: SAVE_INTERVAL,
    Run.stalled_task: SAVE_INTERVAL,
    Run.full_disk: SAVE_INTERVAL,
}
"""How many updates an event may cost."""


def fill(path: Path) -> None:
    """Takes all the space there is."""
    with path.open("wb", buffering=0) as file, contextlib.suppress(OSError):
        while file.write(b"0" * 65536):
            pass
