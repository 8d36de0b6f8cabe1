"""`mmpt report`: write the training curve and an HTML page of a run, or one page that compares several runs."""

import argparse
from pathlib import Path

from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.terminal import say

COMPARISON = Path("comparison.html")


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "report",
        help="write a run's training curve, and a page of queries and their results; or compare several runs",
        description="With one RUN, write its curve.png, and its index.html with queries and their results. "
        "With several, write one page with their curves, their metrics, and the settings in which they differ.",
    )
    command.add_argument(
        "runs",
        type=Path,
        nargs="+",
        metavar="RUN",
        help="the folder of a run, with train.log and metrics.json, which mmpt evaluate --json writes; to compare "
        "several runs, metrics.json is optional",
    )
    command.add_argument("--videos", type=Path, help="the folder of the video files, for one run")
    command.add_argument(
        "--out", type=Path, metavar="FILE", help=f"the page that compares several runs (default {COMPARISON})"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.report import write_comparison

    if len(arguments.runs) == 1:
        if arguments.out:
            raise ValueError(
                "--out is for the page that compares several runs; one run's pages are written to its folder"
            )
        report(arguments.runs[0], arguments.videos)
        return
    if arguments.videos:
        raise ValueError("--videos is for the page of one run; the page that compares several shows no videos")
    out = arguments.out or COMPARISON
    write_comparison(out, arguments.runs)
    say(f"wrote {out}")


def report(folder: Path, videos: Path | None) -> None:
    """Write the curve and the page of one run."""
    from mmpt_plugin.report import about_run, check_result, find_log, read_metrics, write_curve, write_page

    path = folder / "metrics.json"
    if not folder.exists():
        raise ValueError(f"no run {folder}")
    if not path.is_file():
        raise ValueError(f"no {path}: write it with mmpt evaluate PROJECT task=NAME checkpoint=PATH --json {path}")
    if videos is None:
        raise ValueError("--videos FOLDER is missing: the page of one run shows frames of its videos")
    result, log = read_metrics(path), find_log(folder)
    check_result(result, str(path))
    write_curve(log, folder / "curve.png")
    page, title = folder / "index.html", "Unseen videos, found by text"
    try:
        write_page(page, title=title, result=result, videos=videos, about=about_run(folder))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    say(f"wrote {folder / 'curve.png'} and {folder / 'index.html'}")
