"""`mmpt embed`: encode videos or sentences as vectors."""

import argparse
from pathlib import Path

from mmpt_plugin.cli.arguments import Commands, add_model_settings, model_of
from mmpt_plugin.terminal import say


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "embed", help="encode videos or sentences as vectors whose dot products are similarities"
    )
    command.add_argument("checkpoint", type=Path, help="a checkpoint file, or a folder of from_pretrained")
    command.add_argument(
        "videos",
        nargs="*",
        type=Path,
        help="video files, folders of videos (searched recursively), or one .txt file with one path per line",
    )
    command.add_argument(
        "--text", type=Path, metavar="FILE", help="encode the sentences of this file, one per line, instead of videos"
    )
    command.add_argument(
        "--out",
        type=Path,
        required=True,
        help="the output file, .safetensors; features are written to a folder next to it",
    )
    command.add_argument("--workers", type=int, default=1, help="number of processes that extract features (default 1)")
    command.add_argument(
        "--truncate", action="store_true", help="read only the first max_video_len seconds of each video"
    )
    command.add_argument(
        "--allow-missing", action="store_true", help="exit with status 0 even if some videos can't be decoded"
    )
    add_model_settings(command)
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from mmpt_plugin.search.embed import write_text_vectors, write_video_vectors

    if bool(arguments.videos) == bool(arguments.text):
        raise ValueError("expected either videos or --text FILE")
    model = model_of(arguments)
    if arguments.videos and model.encoder is None and not model.takes_frames:
        raise ValueError("videos need --encoder, the encoder of the features the model was trained on (see mmpt list)")
    if arguments.text:
        say(write_text_vectors(model, arguments.text, arguments.out))
        return 0
    report = write_video_vectors(
        model,
        arguments.videos,
        arguments.out,
        num_workers=arguments.workers,
        truncate=arguments.truncate,
    )
    say(report)
    return 2 if report.failed and not arguments.allow_missing else 0
