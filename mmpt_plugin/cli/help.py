"""`mmpt help`: describe a configuration key."""

import argparse

from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.terminal import say


def add(commands: Commands) -> None:
    command = commands.add_parser("help", help="describe a configuration key, a component or a section")
    command.add_argument(
        "key",
        nargs="?",
        metavar="KEY",
        help="such as criterion.temperature, temperature, nce or criterion (default: list the sections)",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin import reference

    say(reference.describe(arguments.key) if arguments.key else reference.overview())
