"""`mmpt list`: what is registered, and which YAML there is."""

import argparse

from mmpt_plugin.cli.arguments import Commands


def add(commands: Commands) -> None:
    command = commands.add_parser("list", help="what is registered, by kind, and which YAML there is")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin import config, registry

    for kind in registry.REGISTRIES:
        print(f"{PLURALS.get(kind.kind, kind.kind + 's'):12} {', '.join(sorted(kind))}")
    for group in ("tasks", "projects", "slurm"):
        print(f"{group + '/':12} {', '.join(config.available(group))}")


PLURALS = {"corpus": "corpora"}
