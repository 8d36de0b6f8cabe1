"""The `mmpt` command: one module per subcommand, each with `add(commands)` and `run(arguments)`.

Each module imports its dependencies inside `run`, so that `mmpt --help` and argument errors load neither torch nor
Hydra.
"""

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import mmpt_plugin.user_dir
from mmpt_plugin.cli import (
    cache_frames,
    convert,
    doctor,
    embed,
    evaluate,
    extract,
    generate,
    help,
    index,
    jobs,
    launch,
    list_components,
    prepare,
    report,
    search,
    serve,
    shard,
    train,
    user_dir,
)
from mmpt_plugin.errors import SeveralProblems, chain
from mmpt_plugin.terminal import log_to_stderr, one_line, say

COMMANDS = (
    list_components, help, doctor, generate, prepare, extract, cache_frames, shard, train, evaluate, report, convert,
    embed, index, search, serve, launch, jobs, user_dir,
)  # fmt: skip

EPILOG = """\
a first run, on the built-in data set:
  mmpt generate toy_kitchen --out data/toy_kitchen
  mmpt extract data/toy_kitchen/videos --encoder efficientnet_lite0 --out data/toy_kitchen/features
  mmpt shard --videos data/toy_kitchen/train.txt --features data/toy_kitchen/features \\
      --captions data/toy_kitchen/captions --tokenizer data/toy_kitchen/tokenizer --out data/toy_kitchen/shards/train
  mmpt train videoclip/toy_kitchen
  mmpt evaluate videoclip/zeroshot task=toy_kitchen_clips checkpoint=runs/demo/checkpoint_last.pt

on your own videos with subtitles:
  mmpt prepare my_videos/ --captions my_captions/ --out data/mine
  mmpt train data/mine/project.yaml

with the released weights, on your own videos:
  mmpt convert checkpoint_best.pt --out videoclip --tokenizer bert-base-uncased \\
      --encoder '{_name: s3d, weights: s3d_howto100m.pth}'
  mmpt embed videoclip my_videos/ --out videos.safetensors
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command and return its exit status: 0, or 2 with one line on stderr if the user's input is wrong.

    The status is 130 after Ctrl-C.
    """
    name = "mmpt"
    try:
        arguments = parse(argv)
        name = f"mmpt {arguments.command}"
        log_to_stderr()
        if arguments.user_dir is not None:
            mmpt_plugin.user_dir.load(arguments.user_dir)
        status: int | None = arguments.run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:  # the reader, such as `head`, has closed the pipe
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except BaseException as error:
        if was_interrupted(error):
            say(f"{name}: interrupted", file=sys.stderr)
            return train.INTERRUPTED
        if not isinstance(error, ValueError | OSError):
            raise
        text = error if isinstance(error, SeveralProblems) else one_line(error)
        say(f"{name}: {text}", file=sys.stderr)
        return 2
    return status or 0


def was_interrupted(error: BaseException) -> bool:
    """Whether Ctrl-C has led to an error: libraries may raise one of their own while they handle it."""
    return any(isinstance(one, KeyboardInterrupt) for one in chain(error))


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Parse the command line; options may precede overrides, videos and runs, which argparse does not support."""
    top = parser()
    arguments, rest = top.parse_known_args(argv)
    if arguments.command == "launch":
        arguments.for_profile = [word for word in rest if word.startswith("slurm.")]
        arguments.words = launch.as_command([word for word in rest if word not in arguments.for_profile])
        if folder := arguments.user_dir or mmpt_plugin.user_dir.current():
            arguments.words += ["--user-dir", str(folder.resolve())]
        arguments.launched = parse(arguments.words)
        return arguments
    listed = next(
        (key for key in ("overrides", "videos", "runs") if isinstance(getattr(arguments, key, None), list)), ""
    )
    if rest and (not listed or any(word.startswith("-") for word in rest)):
        top.error(f"unrecognized arguments: {' '.join(rest)}")
    if rest:
        vars(arguments)[listed] += rest if listed == "overrides" else map(Path, rest)
    return arguments


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="mmpt",
        description="Pre-train VideoCLIP and related models on narrated video, fine-tune and evaluate them, and embed "
        "videos and text.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    top.add_argument("--version", action="version", version=f"mmpt {mmpt_plugin.__version__}")
    commands = top.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for module in COMMANDS:
        module.add(commands)
    for command in commands.choices.values():
        command.add_argument(
            "--user-dir",
            type=Path,
            metavar="DIR",
            help="a folder with __init__.py, or a .py file, that registers components of your own "
            "(default: the environment variable MMPT_USER_DIR)",
        )
    return top
