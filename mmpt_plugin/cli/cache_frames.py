"""`mmpt cache-frames`: decode videos to JPEG frames in shards."""

import argparse
from typing import TYPE_CHECKING

from mmpt_plugin.cli.arguments import Commands, add_videos, videos_of
from mmpt_plugin.terminal import say

if TYPE_CHECKING:
    from mmpt_plugin.video.frame_cache import FrameSettings


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "cache-frames", help="decode videos to JPEG frames in shards, for training and evaluation on frames"
    )
    add_videos(command)
    command.add_argument("--size", type=int, default=224, help="width and height of the frames in pixels (default 224)")
    command.add_argument("--fps", type=int, default=1, help="frames per second (default 1)")
    command.add_argument("--quality", type=int, default=90, help="JPEG quality, 1 to 95 (default 90)")
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.video.frame_cache import FrameSettings

    write_frames(arguments, FrameSettings(size=arguments.size, fps=arguments.fps, quality=arguments.quality))


def write_frames(arguments: argparse.Namespace, settings: "FrameSettings") -> None:
    """Cache the frames of `videos_of(arguments)`, and print a report."""
    from mmpt_plugin.video.cache_frames import cache_frames

    report = cache_frames(
        videos_of(arguments),
        arguments.out,
        settings=settings,
        num_workers=arguments.workers,
        allow_missing=arguments.allow_missing,
        hwaccel=arguments.hwaccel,
    )
    say(report)
