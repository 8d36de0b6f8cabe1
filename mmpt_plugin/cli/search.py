"""`mmpt search`: find moments of a collection by text, or by example."""

import argparse
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.terminal import say

if TYPE_CHECKING:
    from mmpt_plugin.search import Collection, Moment


def add(commands: Commands) -> None:
    command = commands.add_parser("search", help="find moments in a collection of videos by text")
    command.add_argument("collection", help="a folder or URL that mmpt index wrote")
    command.add_argument("text", nargs="?", help="a sentence")
    command.add_argument(
        "--like", metavar="FILE@SECONDS", help="find moments similar to a second of an indexed video, instead of text"
    )
    command.add_argument("-k", type=int, default=10, help="number of moments (default 10)")
    command.add_argument("--folder", help="search only the videos in this folder, below an indexed folder")
    command.add_argument("--json", action="store_true", help="print JSON")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from mmpt_plugin.search import Collection
    from mmpt_plugin.video.clock import clock

    if (arguments.text is None) == (arguments.like is None):
        raise ValueError("expected either a sentence or --like FILE@SECONDS")
    moments = found(Collection.open(arguments.collection), arguments)
    if arguments.json:
        say(json.dumps([asdict(moment) | {"path": str(moment.path)} for moment in moments], indent=2))
    elif not moments:
        say("no moments")
    else:
        for moment in moments:
            say(f"{clock(moment.start)}-{clock(moment.end)}  {moment.strength:5.1f}  {moment.path}")
    return 0


def found(collection: "Collection", arguments: argparse.Namespace) -> "list[Moment]":
    """The moments that the arguments ask for."""
    if arguments.text is not None:
        return collection.search(arguments.text, arguments.k, folder=arguments.folder)
    path, _, second = arguments.like.rpartition("@")
    if not path or not second.replace(".", "", 1).isdigit():
        raise ValueError(f"--like must be FILE@SECONDS, such as trip.mp4@12.5, got '{arguments.like}'")
    return collection.similar(collection.at(path, float(second)), arguments.k, folder=arguments.folder)
