"""`mmpt list`: list the registered components and the YAML files."""

import argparse

from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.terminal import say


def add(commands: Commands) -> None:
    command = commands.add_parser("list", help="list the registered components, by kind, and the YAML files")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin import config, registry

    for kind in registry.REGISTRIES:
        say(f"{PLURALS.get(kind.kind, kind.kind + 's'):12} {', '.join(sorted(kind))}")
    for group in ("tasks", "projects", "slurm"):
        say(f"{group + '/':12} {', '.join(config.available(group))}")


PLURALS = {"corpus": "corpora"}
