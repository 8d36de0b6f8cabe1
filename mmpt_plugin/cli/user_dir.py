"""`mmpt user-dir`: print the folder for `fairseq-train --user-dir`."""

import argparse

from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.terminal import say


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "user-dir", help="print the folder of mmpt_plugin: fairseq-train --user-dir $(mmpt user-dir) ..."
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.user_dir import PACKAGE

    say(PACKAGE)
