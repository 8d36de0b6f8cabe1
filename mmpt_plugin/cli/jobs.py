"""`mmpt jobs`: list the launched jobs."""

import argparse
from pathlib import Path

from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.cli.launch import RUNS, launching


def add(commands: Commands) -> None:
    command = commands.add_parser("jobs", help="list the launched jobs: state, epoch, loss, throughput and log file")
    command.add_argument("folder", nargs="?", type=Path, default=RUNS, help="the folder of the runs (default runs)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    lines = list(launching().describe_jobs(arguments.folder))
    print("\n".join(lines) or f"no launched jobs in {arguments.folder}")
