"""`mmpt jobs`: list the launched jobs."""

import argparse
import contextlib
import json
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

from mmpt_plugin import terminal
from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.cli.launch import RUNS, launching
from mmpt_plugin.terminal import say


def add(commands: Commands) -> None:
    command = commands.add_parser("jobs", help="list the launched jobs: state, epoch, loss, throughput and log file")
    command.add_argument("folder", nargs="?", type=Path, default=RUNS, help="the folder of the runs (default runs)")
    form = command.add_mutually_exclusive_group()
    form.add_argument("--json", action="store_true", help="print a JSON list, with the command that stops each job")
    form.add_argument(
        "--watch",
        type=float,
        nargs="?",
        const=10,
        metavar="SECONDS",
        help="show the table until no job can run any more, and update it every 10 seconds, or every SECONDS",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    launch = launching()
    jobs = launch.job_statuses(arguments.folder)
    if arguments.json:
        say(json.dumps([asdict(job) for job in jobs], indent=2))
    elif not jobs:
        say(f"no launched jobs in {arguments.folder}")
    elif arguments.watch is None:
        console().print(launch.jobs_table(jobs))
    else:
        watch(arguments.folder, arguments.watch)


def watch(folder: Path, seconds: float) -> None:
    """Show the table, updated in place, until all jobs are over or Ctrl-C is pressed."""
    from rich.live import Live

    launch = launching()
    with Live(console=console(), auto_refresh=False) as live, contextlib.suppress(KeyboardInterrupt):
        while True:
            jobs = launch.job_statuses(folder)
            live.update(launch.jobs_table(jobs), refresh=True)
            if all(launch.is_over(job.state) for job in jobs):
                return
            time.sleep(seconds)


def console() -> Any:
    """The terminal; output to a file or a pipe is not cut to a width."""
    here = terminal.console()
    return here if here.is_terminal else terminal.console(width=1000)
