"""`mmpt index`: make video files searchable."""

import argparse
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from mmpt_plugin.cli.arguments import Commands, add_model_settings, model_options
from mmpt_plugin.terminal import say

if TYPE_CHECKING:
    from mmpt_plugin.search import Collection


def add(commands: Commands) -> None:
    command = commands.add_parser("index", help="make video files searchable: add them to a collection")
    command.add_argument("videos", nargs="+", type=Path, help="video files and folders, which are searched recursively")
    command.add_argument(
        "--collection",
        required=True,
        metavar="C",
        help="a folder to create or extend, an s3:// URL, or milvus+http://host:19530/name",
    )
    command.add_argument(
        "--model", type=Path, help="a checkpoint file, or a folder of from_pretrained; needed for a new collection"
    )
    command.add_argument("--window", type=int, help="seconds of a moment, for a new collection (default 6)")
    command.add_argument("--hop", type=int, help="seconds between moments, for a new collection (default 2)")
    command.add_argument("--workers", type=int, default=1, help="number of processes (default 1)")
    command.add_argument(
        "--remove-missing", action="store_true", help="remove videos whose file is no longer in these folders"
    )
    add_model_settings(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    collection = collection_of(arguments)
    report = collection.index(arguments.videos, num_workers=arguments.workers, remove_missing=arguments.remove_missing)
    say(report)
    where = shlex.quote(arguments.collection)
    say(f'search:  mmpt search {where} "a sentence"\npage:    mmpt serve {where}')
    return 2 if report.failed else 0


def collection_of(arguments: argparse.Namespace) -> "Collection":
    """The collection, which is created if there is none; ValueError for settings other than its own."""
    from mmpt_plugin.search import Collection

    cuts = {key: getattr(arguments, key) for key in ("window", "hop") if getattr(arguments, key) is not None}
    options = model_options(arguments)
    if not Collection.exists(arguments.collection):
        if arguments.model is None:
            raise ValueError(f"there is no collection at {arguments.collection}: create it with --model MODEL")
        try:
            return Collection.create(arguments.collection, model=arguments.model, **cuts, **options)
        except ValueError:
            if not Collection.exists(arguments.collection):  # otherwise another process was faster
                raise
    collection = Collection.open(arguments.collection)
    for key, value in cuts.items():
        if value != collection.settings[key]:
            raise ValueError(f"{arguments.collection} has --{key} {collection.settings[key]}, which never changes")
    if arguments.model is not None:
        collection.check_model(arguments.model, **options)
    return collection
