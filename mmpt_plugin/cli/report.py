"""`mmpt report`: write the training curve and an HTML page of a run."""

import argparse
import json
from pathlib import Path
from typing import Any

from mmpt_plugin.cli.arguments import Commands


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "report", help="write a run's training curve, and a page of queries and their results"
    )
    command.add_argument("folder", type=Path, help="the folder of a run, with metrics.json and train.log")
    command.add_argument("--videos", type=Path, required=True, help="the folder of the video files")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.report import write_curve, write_page

    path = arguments.folder / "metrics.json"
    if not path.is_file():
        raise ValueError(f"no {path}: write it with mmpt evaluate PROJECT task=NAME checkpoint=PATH --json {path}")
    try:
        result: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path} is not JSON: {error}") from error
    write_curve(arguments.folder / "train.log", arguments.folder / "curve.png")
    write_page(
        arguments.folder / "index.html",
        title="Unseen videos, found by text",
        result=result,
        videos=arguments.videos,
    )
    print(f"wrote {arguments.folder / 'curve.png'} and {arguments.folder / 'index.html'}")
