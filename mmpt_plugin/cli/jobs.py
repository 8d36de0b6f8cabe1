"""`mmpt jobs`: the launched jobs."""

import argparse
from pathlib import Path

from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.cli.launch import RUNS, launching


def add(commands: Commands) -> None:
    command = commands.add_parser("jobs", help="the launched jobs: state, epoch, loss, throughput, log")
    command.add_argument("folder", nargs="?", type=Path, default=RUNS, help="where the runs are (default runs)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    lines = list(launching().describe_jobs(arguments.folder))
    print("\n".join(lines) or f"no job was launched into a folder under {arguments.folder}")
