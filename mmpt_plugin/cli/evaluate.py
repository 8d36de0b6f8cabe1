"""`mmpt evaluate`: evaluate a checkpoint on one task or on all benchmarks."""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from mmpt_plugin import terminal
from mmpt_plugin.cli.arguments import Commands, add_project
from mmpt_plugin.terminal import say


def add(commands: Commands) -> None:
    command = commands.add_parser("evaluate", help="evaluate a checkpoint on one task, or on all benchmarks")
    add_project(command)
    command.add_argument("--json", type=Path, metavar="FILE", help="also write the result to this file")
    command.add_argument(
        "--html",
        type=Path,
        metavar="DIR",
        help="write a page with predicted and true segments for each benchmark that has segments to this folder",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from mmpt_plugin.config import load_benchmarks, load_project, plain
    from mmpt_plugin.files import replace_text
    from mmpt_plugin.report import has_timelines, metrics_table, not_there_table, oracles_table, write_timelines
    from mmpt_plugin.tasks.evaluate import evaluate, evaluate_all

    def write(result: dict[str, Any]) -> None:
        if arguments.json:
            replace_text(arguments.json, json.dumps(result, indent=2) + "\n")

    project, console = plain(load_project(arguments.project, arguments.overrides)), terminal.console()
    if (project.get("task") or {}).get("_name"):
        result = evaluate(project)
        results = [result]
    else:
        result = evaluate_all(load_benchmarks(arguments.project, arguments.overrides, project), keep=write)
        results = list(result["benchmarks"].values())
        if result["not_there"]:
            console.print(not_there_table(result["not_there"]))
    for one in results:
        console.print(metrics_table(one))
        if "oracles" in one:
            console.print(oracles_table(one))
        if arguments.html and has_timelines(one):
            write_timelines(arguments.html / f"{one.get('benchmark', one['task'])}.html", one)
    write(result)
    if failed := result.get("failed"):
        say(
            f"mmpt evaluate: failed: {'; '.join(f'{name}: {why}' for name, why in failed.items())}",
            file=sys.stderr,
        )
    return 2 if failed else 0
