"""The table of `mmpt jobs`."""

from collections.abc import Sequence
from pathlib import Path

from rich.table import Table
from rich.text import Text

from mmpt_plugin.launch.watch import ACTIVE, WAITING, JobStatus
from mmpt_plugin.terminal import printable


def jobs_table(jobs: Sequence[JobStatus]) -> Table:
    """A row per job: its state in colour, its progress, and below its folder what is wrong and where its log is."""
    table = Table(box=None, pad_edge=False)
    for head in ("job", "state"):
        table.add_column(head, no_wrap=True)
    for head in ("epoch", "update", "loss", "pairs/s"):
        table.add_column(head, justify="right", no_wrap=True)
    table.add_column("folder", overflow="fold")
    for job in jobs:
        rate = None if job.pairs_per_second is None else round(job.pairs_per_second)
        numbers = ("" if value is None else str(value) for value in (job.epoch, job.update, job.loss, rate))
        place = Text(printable(job.folder))
        if job.why:
            place.append(f"\n{printable(job.why)}", style=colour(job.state))
        place.append(f"\n{printable(relative(job.log))}", style="dim")
        table.add_row(job.job, Text(printable(job.state), style=colour(job.state)), *numbers, place)
    return table


def colour(state: str) -> str:
    """The colour of a state."""
    if state == "COMPLETED":
        return "green"
    return "cyan" if state in ACTIVE else "yellow" if state in WAITING else "red"


def relative(path: str) -> str:
    """The path from the current folder, if it is below it."""
    return str(Path(path).relative_to(Path.cwd())) if Path(path).is_relative_to(Path.cwd()) else path
