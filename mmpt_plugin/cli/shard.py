"""`mmpt shard`: write features and captions to shards."""

import argparse
from pathlib import Path

from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.terminal import say


def add(commands: Commands) -> None:
    command = commands.add_parser("shard", help="write features and captions to memory-mapped shards for training")
    command.add_argument(
        "--videos", type=Path, help="a file with one video id per line (default: all videos with features)"
    )
    command.add_argument(
        "--features",
        type=Path,
        required=True,
        help="a folder of {video_id}.npy, or of the original toolkit's shards; for training on frames, a folder of "
        "videos or cached frames",
    )
    command.add_argument(
        "--captions",
        type=Path,
        required=True,
        help="a folder of {video_id}.vtt, .srt or .jsonl, or of {video_id}.en.vtt if there is one language; "
        "HowTo100M's raw_caption.json or .pickle; one .jsonl file whose lines have a video_id; or a folder of the "
        "original toolkit's caption shards",
    )
    command.add_argument("--tokenizer", required=True, help="a BERT, CLIP or SigLIP tokenizer, by hub name or folder")
    command.add_argument("--out", type=Path, required=True, help="the output folder")
    command.add_argument(
        "--split", default="train", help="split to read, for the original toolkit's shards (default train)"
    )
    command.add_argument(
        "--max-tokens", type=int, default=32, help="truncate captions to this number of tokens (default 32)"
    )
    command.add_argument(
        "--max-characters",
        type=int,
        help="truncate captions to this number of characters before tokenization; the released VideoCLIP was trained "
        "with 96 (default: no limit)",
    )
    command.add_argument(
        "--deduplicate",
        choices=["word", "character", "none"],
        default="word",
        help="unit in which repetitions in HowTo100M's captions are removed: word, or character as in the original; "
        "none keeps repetitions, also those of rolling captions in other files (default word)",
    )
    command.add_argument(
        "--allow-missing", action="store_true", help="skip videos without features or captions, and report their number"
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
                f"{arguments.features} contains the original toolkit's shards, which are converted as a whole: remove "
                "--videos, --max-characters and --allow-missing"
            )
        say(convert_mmpt_shards(**common, split=arguments.split))
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
    say(report)
