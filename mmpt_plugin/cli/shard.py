"""`mmpt shard`: features and captions to shards."""

import argparse
from pathlib import Path

from mmpt_plugin.cli.arguments import Commands


def add(commands: Commands) -> None:
    command = commands.add_parser("shard", help="features and captions -> memory-mapped shards for training")
    command.add_argument("--videos", type=Path, help="a file of video ids, one per line (default: all with features)")
    command.add_argument(
        "--features",
        type=Path,
        required=True,
        help="a folder of {video_id}.npy, or of the original toolkit's shards; to train on frames, a folder of videos "
        "or of cached frames",
    )
    command.add_argument(
        "--captions",
        type=Path,
        required=True,
        help="a folder of {video_id}.vtt, .srt or .jsonl, or of {video_id}.en.vtt if there is one language; "
        "HowTo100M's raw_caption.json or .pickle; one .jsonl of lines "
        "with a video_id; or a folder of the original toolkit's caption shards",
    )
    command.add_argument("--tokenizer", required=True, help="a BERT, CLIP or SigLIP tokenizer, by hub name or folder")
    command.add_argument("--out", type=Path, required=True)
    command.add_argument("--split", default="train", help="split of the original toolkit's shards (default train)")
    command.add_argument("--max-tokens", type=int, default=32, help="word pieces kept of each caption (default 32)")
    command.add_argument(
        "--max-characters",
        type=int,
        help="characters kept of each caption; the released VideoCLIP saw 96 (default: all)",
    )
    command.add_argument(
        "--deduplicate",
        choices=["word", "character", "none"],
        default="word",
        help="how repetitions in HowTo100M's captions are found: by word, by character as the original does, or not "
        "at all, which also leaves rolling captions in other files as they are (default word)",
    )
    command.add_argument(
        "--allow-missing", action="store_true", help="leave out and count videos without features or captions"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> None:
    from mmpt_plugin.files import read_list
    from mmpt_plugin.shards.make import CaptionLimits, convert_mmpt_shards, make_shards

    common = {
        "features": arguments.features,
        "captions": arguments.captions,
        "tokenizer": arguments.tokenizer,
        "out": arguments.out,
    }
    if (arguments.features / f"{arguments.split}_meta.pkl").is_file():
        if arguments.videos or arguments.max_characters or arguments.allow_missing:
            raise ValueError(
                f"{arguments.features} holds the original's shards, which are converted whole: leave out --videos, "
                "--max-characters and --allow-missing"
            )
        print(convert_mmpt_shards(**common, split=arguments.split))
        return
    report = make_shards(
        read_list(arguments.videos) if arguments.videos else None,
        **common,
        allow_missing=arguments.allow_missing,
        limits=CaptionLimits(
            max_tokens=arguments.max_tokens,
            max_characters=arguments.max_characters,
            unit=None if arguments.deduplicate == "none" else arguments.deduplicate,
        ),
    )
    print(report)
