"""Arguments that several commands share, and what they stand for."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpt_plugin.models import PretrainedEmbedder

Commands = Any  # argparse has no public name for what add_subparsers returns


def add_videos(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "videos",
        nargs="+",
        type=Path,
        help="video files, folders of them (searched recursively), or one .txt file of paths, one per line",
    )
    command.add_argument("--part", metavar="I/N", help="only every Nth video, from the Ith: 3/16")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--workers", type=int, default=1, help="processes (default 1)")
    command.add_argument("--allow-missing", action="store_true", help="exit with 0 if some videos can't be decoded")


def videos_of(arguments: argparse.Namespace) -> Sequence[Path]:
    """The share `--part 3/16` of the videos; each keeps the id that it has among all."""
    from mmpt_plugin.video.store import list_videos

    videos, part = list_videos(arguments.videos, out=arguments.out), arguments.part
    if part is None:
        return videos
    number, _, count = part.partition("/")
    if not (number.isdigit() and count.isdigit() and 1 <= int(number) <= int(count) <= len(videos)):
        raise ValueError(f"--part is I/N with 1 <= I <= N <= {len(videos)} (videos), got '{part}'")
    return videos[int(number) - 1 :: int(count)]


def add_project(command: argparse.ArgumentParser) -> None:
    command.add_argument("project", help="a YAML file, or a name such as videoclip/pretrain (see mmpt list)")
    command.add_argument("overrides", nargs="*", metavar="key=value", help="optimization.lr=[1e-4], task=msrvtt, ...")


def add_model_settings(command: argparse.ArgumentParser) -> None:
    """What the tensors of a checkpoint don't say."""
    command.add_argument(
        "--tokenizer",
        help="a BERT, CLIP or SigLIP tokenizer, by hub name or folder; the released VideoCLIP's is bert-base-uncased",
    )
    command.add_argument(
        "--encoder",
        help="what made the features that the model was trained on, as for mmpt extract; the released VideoCLIP's is "
        "'{_name: s3d, weights: s3d_howto100m.pth}' (default: the one that the folder names)",
    )
    command.add_argument("--num-attention-heads", type=int, help="default: as the file says, or 12")
    command.add_argument("--max-video-len", type=int, help="seconds; default: as the file says, or 32")


def model_of(arguments: argparse.Namespace) -> "PretrainedEmbedder":
    """The model of `arguments.checkpoint`, with the settings of `add_model_settings`."""
    from mmpt_plugin import models

    settings = {key: getattr(arguments, key) for key in ("num_attention_heads", "max_video_len")}
    given = {key: value for key, value in settings.items() if value is not None}
    encoder = component(arguments.encoder) if arguments.encoder else None
    return models.load_model(arguments.checkpoint, tokenizer=arguments.tokenizer, encoder=encoder, **given)


def component(text: str) -> dict[str, Any]:
    """A component by its name, or by YAML with its settings."""
    import yaml

    settings = yaml.safe_load(text)
    return settings if isinstance(settings, dict) else {"_name": settings}
