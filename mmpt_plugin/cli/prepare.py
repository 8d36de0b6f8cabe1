"""`mmpt prepare`: from a folder of videos with subtitles to shards and a project that trains on them."""

import argparse
import math
import shlex
import zlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_plugin.cli.arguments import Commands, component
from mmpt_plugin.terminal import say

if TYPE_CHECKING:
    from mmpt_plugin.video.store import VideoList

CLUSTER_SIZE = 16  # videos per batch, if there are as many
UPDATES = 200  # at least; the epochs of a few videos have few
NUM_VALIDATIONS = 10

ENCODER, TOKENIZER = "efficientnet_lite0", "bert-base-uncased"


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "prepare",
        help="from videos with subtitles to a project that mmpt train trains: features, shards and a YAML",
        description="Extract features (mmpt extract), combine them with the subtitles into shards (mmpt shard), and "
        "write OUT/project.yaml, which mmpt train trains. If it is interrupted, run it again to continue.",
    )
    command.add_argument(
        "videos",
        nargs="+",
        type=Path,
        help="video files, folders of videos (searched recursively), or one .txt file with one path per line",
    )
    command.add_argument(
        "--captions",
        type=Path,
        help="a folder of {video_id}.vtt, .srt or .jsonl, or of {video_id}.en.vtt, or another source of mmpt shard "
        "(default: the folder of the videos)",
    )
    command.add_argument("--out", type=Path, required=True, help="the output folder")
    command.add_argument(
        "--model",
        type=Path,
        help="train this VideoCLIP further, with its own encoder and tokenizer: a folder that mmpt convert wrote "
        "(default: train a small one from random weights)",
    )
    command.add_argument("--encoder", help=f"the encoder of the features, as for mmpt extract (default {ENCODER})")
    command.add_argument("--tokenizer", help=f"a BERT tokenizer, by hub name or folder (default {TOKENIZER})")
    command.add_argument(
        "--valid", type=float, default=0.1, metavar="SHARE", help="share of the videos to validate on (default 0.1)"
    )
    command.add_argument("--workers", type=int, default=1, help="number of processes (default 1)")
    command.add_argument(
        "--allow-missing", action="store_true", help="skip videos that can't be decoded or have no usable captions"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.features.extract import extract
    from mmpt_plugin.features.files import FeatureFolder
    from mmpt_plugin.files import writing
    from mmpt_plugin.shards.make import make_shards
    from mmpt_plugin.tokenizer import load_tokenizer
    from mmpt_plugin.video.store import list_videos

    if not 0 <= arguments.valid < 1:
        raise ValueError(f"--valid must be at least 0 and less than 1, got {arguments.valid}")
    model, encoder, tokenizer = starting_point(arguments)
    load_tokenizer(tokenizer)  # before hours of extraction
    captions = arguments.captions or folder_of(arguments.videos)
    videos = narrated(list_videos(arguments.videos, out=arguments.out), captions, arguments.allow_missing)
    features, shards = arguments.out / "features", arguments.out / "shards"
    report = extract(
        videos, features, encoder=encoder, num_workers=arguments.workers, allow_missing=arguments.allow_missing
    )
    say(report)
    ready = [video_id for video_id in videos.ids if video_id in FeatureFolder(features)]
    if not ready:
        raise ValueError(f"none of the {len(videos)} videos can be decoded")
    splits = {split: ids for split, ids in split_videos(ready, arguments.valid).items() if ids}
    numbers = {}
    for split, ids in splits.items():
        made = make_shards(
            ids,
            features=features,
            captions=captions,
            tokenizer=tokenizer,
            out=shards / split,
            allow_missing=arguments.allow_missing,
        )
        say(f"{split}: {made}")
        numbers[split] = made.videos
    path = arguments.out / "project.yaml"
    steps = next_commands(arguments, path, numbers, encoder, tokenizer)
    with writing(path, replaced=True):
        write_project(path, numbers, model=model, start=arguments.model, comments=steps[1:])
    say("\n".join(["next:", *steps]))


def starting_point(arguments: argparse.Namespace) -> tuple[Any, dict[str, Any], str]:
    """The model to train further, or None; the settings of the encoder, and the tokenizer."""
    encoder = component(arguments.encoder) if arguments.encoder else None
    if arguments.model is None:
        return None, encoder or component(ENCODER), arguments.tokenizer or TOKENIZER
    from mmpt_plugin.models import VideoCLIP

    model = VideoCLIP.from_pretrained(arguments.model, tokenizer=arguments.tokenizer, encoder=encoder)
    if model.encoder is None or model.tokenizer is None:
        raise ValueError(
            f"{arguments.model} was saved without {'its encoder' if model.encoder is None else 'its tokenizer'}: add "
            "--encoder and --tokenizer, those that it was trained with"
        )
    return model, model.encoder, arguments.tokenizer or str(arguments.model)


def folder_of(videos: Sequence[Path]) -> Path:
    """The folder whose captions belong to the videos; ValueError if there is more than one."""
    if len(videos) == 1 and videos[0].is_dir():
        return videos[0]
    raise ValueError("--captions FOLDER is missing: it may be left out only for one folder of videos")


def narrated(videos: "VideoList", captions: Path, allow_missing: bool) -> "VideoList":
    """The videos with captions, so that no features are extracted in vain; ValueError if some have none."""
    from mmpt_plugin.shards.caption_sources import caption_source
    from mmpt_plugin.shards.captions import SUFFIXES
    from mmpt_plugin.video.store import VideoList

    lacking = caption_source(captions).lacking(videos.ids)
    if lacking and (not allow_missing or len(lacking) == len(videos)):
        some = "; ".join(list(lacking.values())[:3])
        advice = "" if len(lacking) == len(videos) else ". To skip these videos: --allow-missing"
        raise ValueError(f"{len(lacking)} of {len(videos)} videos have no captions: {some}{advice}")
    for video_id, reason in lacking.items():
        say(f"skipped {video_id}: {reason}")
    left_out = {file: why for file, why in videos.left_out.items() if Path(file).suffix.lower() not in SUFFIXES}
    kept = [(video_id, path) for video_id, path in videos.items() if video_id not in lacking]
    return VideoList(tuple(path for _, path in kept), tuple(video_id for video_id, _ in kept), left_out)


def split_videos(video_ids: Sequence[str], share: float) -> dict[str, list[str]]:
    """A share of the videos, rounded down, to validate on, and the others to train on; the choice is that of a hash."""
    by_hash = sorted(video_ids, key=lambda video_id: (zlib.crc32(video_id.encode()), video_id))
    held_out = set(by_hash[: int(share * len(video_ids))])
    return {
        "train": [video_id for video_id in video_ids if video_id not in held_out],
        "valid": [video_id for video_id in video_ids if video_id in held_out],
    }


def write_project(
    path: Path, numbers: Mapping[str, int], *, model: Any, start: Path | None, comments: Sequence[str]
) -> None:
    """Write the project that trains on `numbers` of videos in each split; a file that is there is kept."""
    from mmpt_plugin.files import atomic_write

    if path.exists():
        say(f"kept {path}; to write it again, delete it")
        return
    here, size = path.parent.resolve(), min(CLUSTER_SIZE, numbers["train"])
    every = math.ceil(UPDATES / (NUM_VALIDATIONS * math.ceil(numbers["train"] / size)))  # epochs between validations
    dataset = [f"disable_validation: {str('valid' not in numbers).lower()}", f"validate_interval: {every}"]
    dataset += ["num_workers: 0"] if every > 1 else []  # starting a process takes longer than reading a few videos
    splits = ", ".join(f"{split}: {quoted(here / 'shards' / split)}" for split in numbers)
    lines = [
        "# @package _global_",
        f"# Trains a VideoCLIP on {numbers['train']} videos. Written by mmpt prepare; change what you like.",
        f"defaults: [/projects/videoclip/{'small' if start is None else 'continue'}@_global_, _self_]",
        f"task: {{dataset: {{splits: {{{splits}}}}}}}",
    ]
    if start is not None:
        lines += [
            f"model: {{_name: {model.model_type}, pretrained: {quoted(start.resolve())}}}",
            f"criterion: {{temperature: {0.07 if model.unit_vectors else 1.0}}}",
        ]
    lines += [
        f"sampler: {{cluster_size: {size}}}  # videos per batch",
        f"optimization: {{max_epoch: {NUM_VALIDATIONS * every}}}",
        f"dataset: {{{', '.join(dataset)}}}",
        f"checkpoint: {{save_dir: {quoted(here / 'run')}}}",
        "# After the training:",
        *(f"# {comment}" for comment in comments),
    ]
    atomic_write(path, lambda temporary: temporary.write_text("\n".join(lines) + "\n", encoding="utf-8"))


def quoted(path: Path) -> str:
    """A path as a YAML string, which is also one of JSON."""
    import json

    return json.dumps(str(path), ensure_ascii=False)


def next_commands(
    arguments: argparse.Namespace, project: Path, numbers: dict[str, int], encoder: dict[str, Any], tokenizer: str
) -> list[str]:
    """The commands that train, and that make the trained model a folder with its encoder and tokenizer."""
    import json

    chosen = "best" if numbers.get("valid", 0) >= CLUSTER_SIZE else "last"  # the loss of a few videos is noise
    checkpoint = arguments.out / "run" / f"checkpoint_{chosen}.pt"
    made_by = encoder["_name"] if len(encoder) == 1 else json.dumps(encoder)
    commands = [
        ["train", project],
        ["convert", checkpoint, "--out", arguments.out / "model", "--tokenizer", tokenizer, "--encoder", made_by],
        ["index", *arguments.videos, "--model", arguments.out / "model", "--collection", arguments.out / "collection"],
    ]
    return [f"  mmpt {shlex.join(map(str, words))}" for words in commands]
