"""`mmpt serve`: search a collection of videos in the browser."""

import argparse
import sys

from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.terminal import say


def add(commands: Commands) -> None:
    command = commands.add_parser("serve", help="search a collection of videos in the browser")
    command.add_argument("collection", help="a folder or URL that mmpt index wrote")
    command.add_argument(
        "--host",
        default="127.0.0.1",
        help="address to listen on (default 127.0.0.1, for this machine only; 0.0.0.0 for all networks)",
    )
    command.add_argument("--port", type=int, default=8000, help="port (default 8000; 0 for any free port)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from mmpt_plugin.search import Collection
    from mmpt_plugin.search.server import LOCAL, listen, serve

    collection = Collection.open(arguments.collection)
    with listen(arguments.host, arguments.port) as listening:
        collection.model  # noqa: B018  loaded before the first search; a model that has changed is an error here
        if arguments.host not in LOCAL:
            say(f"warning: anyone who reaches {arguments.host} can search and watch these videos", file=sys.stderr)
        port = listening.getsockname()[1]
        host = "127.0.0.1" if arguments.host in (*LOCAL, "0.0.0.0") else arguments.host
        say(f"http://{f'[{host}]' if ':' in host else host}:{port}", flush=True)
        try:
            serve(collection, listening)
        except KeyboardInterrupt:
            return 0
    return 0
