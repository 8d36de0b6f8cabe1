"""`mmpt extract`: extract the features of videos."""

import argparse
import logging

from mmpt_plugin.cli.arguments import Commands, add_videos, component, videos_of
from mmpt_plugin.terminal import say


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "extract", help="extract features of videos: one row per second, one .npy file per video"
    )
    add_videos(command)
    command.add_argument(
        "--encoder",
        required=True,
        help="the name of an encoder (see mmpt list), or YAML with its settings: '{_name: s3d, size: 64}'",
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.features.extract import extract

    encoder = component(arguments.encoder)
    if encoder.get("_name") == "frames":  # version 0.1; accepted for one version
        from mmpt_plugin.cli.cache_frames import write_frames
        from mmpt_plugin.registry import parse_config
        from mmpt_plugin.video.frame_cache import FrameSettings

        logging.warning("--encoder frames is deprecated: use mmpt cache-frames VIDEOS --out DIR --size ... --fps ...")
        settings = {key: value for key, value in encoder.items() if key != "_name"}
        write_frames(arguments, parse_config(FrameSettings, settings, "frames"))
        return
    report = extract(
        videos_of(arguments),
        arguments.out,
        encoder=encoder,
        num_workers=arguments.workers,
        allow_missing=arguments.allow_missing,
        hwaccel=arguments.hwaccel,
    )
    say(report)
