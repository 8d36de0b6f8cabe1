"""`mmpt cache-frames`: videos to JPEGs in shards."""

import argparse
from typing import TYPE_CHECKING

from mmpt_plugin.cli.arguments import Commands, add_videos, videos_of

if TYPE_CHECKING:
    from mmpt_plugin.video.frame_cache import FrameSettings


def add(commands: Commands) -> None:
    command = commands.add_parser("cache-frames", help="videos -> JPEGs in shards, to train and evaluate on frames")
    add_videos(command)
    command.add_argument("--size", type=int, default=224, help="pixels of the square frames (default 224)")
    command.add_argument("--fps", type=int, default=1, help="frames per second (default 1)")
    command.add_argument("--quality", type=int, default=90, help="JPEG quality, 1 to 95 (default 90)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.video.frame_cache import FrameSettings

    write_frames(arguments, FrameSettings(size=arguments.size, fps=arguments.fps, quality=arguments.quality))


def write_frames(arguments: argparse.Namespace, settings: "FrameSettings") -> None:
    from mmpt_plugin.video.cache_frames import cache_frames

    report = cache_frames(
        videos_of(arguments),
        arguments.out,
        settings=settings,
        num_workers=arguments.workers,
        allow_missing=arguments.allow_missing,
    )
    print(report)
