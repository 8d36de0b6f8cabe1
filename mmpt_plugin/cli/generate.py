"""`mmpt generate`: write the built-in data set."""

import argparse
from pathlib import Path

from mmpt_plugin.cli.arguments import Commands


def add(commands: Commands) -> None:
    command = commands.add_parser("generate", help="write the built-in data set: videos, captions and annotations")
    command.add_argument("name", choices=["toy_kitchen"], help="the data set")
    command.add_argument("--out", type=Path, required=True, help="the output folder")
    command.add_argument("--train", type=int, default=640, metavar="N", help="number of training videos (default 640)")
    command.add_argument("--test", type=int, default=80, metavar="N", help="number of held-out videos (default 80)")
    command.add_argument("--seed", type=int, default=0, help="seed of the random choices (default 0)")
    command.add_argument("--workers", type=int, help="number of processes (default: all cores)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.toy_kitchen import generate

    generate(
        arguments.out,
        num_train=arguments.train,
        num_test=arguments.test,
        seed=arguments.seed,
        num_workers=arguments.workers,
    )
