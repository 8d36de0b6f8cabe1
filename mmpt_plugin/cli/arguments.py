"""Arguments that several commands share, and functions that interpret them."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpt_plugin.models import PretrainedEmbedder

Commands = Any  # argparse has no public name for what add_subparsers returns


def add_videos(command: argparse.ArgumentParser) -> None:
    """Add the arguments of commands that read videos and write a folder; see `videos_of`."""
    command.add_argument(
        "videos",
        nargs="+",
        type=Path,
        help="video files, folders of videos (searched recursively), or one .txt file with one path per line",
    )
    command.add_argument("--part", metavar="I/N", help="process only part I of N, such as 3/16: every Nth video")
    command.add_argument("--out", type=Path, required=True, help="the output folder")
    command.add_argument("--workers", type=int, default=1, help="number of processes (default 1)")
    command.add_argument(
        "--allow-missing", action="store_true", help="exit with status 0 even if some videos can't be decoded"
    )
    command.add_argument(
        "--hwaccel", metavar="KIND", help="decode by hardware: cuda is NVDEC, the video decoder of each process's GPU"
    )


def videos_of(arguments: argparse.Namespace) -> Sequence[Path]:
    """The videos of `--part`, such as 3/16, or all; a video's id does not depend on the part."""
    from mmpt_plugin.video.store import list_videos

    videos, part = list_videos(arguments.videos, out=arguments.out), arguments.part
    if part is None:
        return videos
    number, _, count = part.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count) <= len(videos)):
        raise ValueError(f"--part must be I/N with 1 <= I <= N <= {len(videos)} (number of videos), got '{part}'")
    return videos[int(number) - 1 :: int(count)]


def add_project(command: argparse.ArgumentParser) -> None:
    """Add a project and its overrides."""
    command.add_argument("project", help="a YAML file, or the name of a project such as videoclip/pretrain (mmpt list)")
    command.add_argument(
        "overrides",
        nargs="*",
        metavar="key=value",
        help="values that replace those of the YAML file: optimization.lr=[1e-4], task=msrvtt, ...",
    )


def add_model_settings(command: argparse.ArgumentParser) -> None:
    """Add the settings that a checkpoint file may lack."""
    command.add_argument(
        "--tokenizer",
        help="a BERT, CLIP or SigLIP tokenizer, by hub name or folder; the released VideoCLIP uses bert-base-uncased",
    )
    command.add_argument(
        "--encoder",
        help="the encoder of the features that the model was trained on, as for mmpt extract; the released VideoCLIP "
        "uses '{_name: s3d, weights: s3d_howto100m.pth}' (default: the encoder saved with the model)",
    )
    command.add_argument(
        "--num-attention-heads", type=int, help="number of attention heads (default: as saved in the file, or 12)"
    )
    command.add_argument(
        "--max-video-len",
        type=int,
        help="longest video clip, in seconds or frames (default: as saved in the file, or 32 s, or 12 frames)",
    )
    command.add_argument(
        "--setting",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another setting of the model, such as max_text_len=62 or feature_framerate=1; may be repeated",
    )


def model_of(arguments: argparse.Namespace) -> "PretrainedEmbedder":
    """Load the model of `arguments.checkpoint`, with the settings of `add_model_settings`."""
    from mmpt_plugin import models

    return models.load_model(arguments.checkpoint, **model_options(arguments))


def model_options(arguments: argparse.Namespace) -> dict[str, Any]:
    """The options of `load_model` that were given, from the arguments of `add_model_settings`."""
    from mmpt_plugin.yaml_files import parse_yaml

    names = ("tokenizer", "num_attention_heads", "max_video_len")
    given = {key: getattr(arguments, key) for key in names if getattr(arguments, key) is not None}
    if arguments.encoder:
        given["encoder"] = component(arguments.encoder)
    for setting in arguments.setting:
        key, separator, value = setting.partition("=")
        if not separator:
            raise ValueError(f"--setting must be KEY=VALUE, got '{setting}'")
        given[key] = parse_yaml(value, f"--setting {key}")
    return given


def component(text: str) -> dict[str, Any]:
    """The settings of a component from its name, such as `s3d`, or from YAML, such as `{_name: s3d, size: 64}`."""
    from mmpt_plugin.yaml_files import parse_yaml

    settings = parse_yaml(text, f"'{text}'")
    return settings if isinstance(settings, dict) else {"_name": settings}
