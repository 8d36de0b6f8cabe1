"""`mmpt train`: train a project with fairseq's trainer."""

import argparse
import logging
import shlex
import sys
from pathlib import Path
from typing import Any

from mmpt_plugin.cli.arguments import Commands, add_project
from mmpt_plugin.terminal import say

INTERRUPTED = 130  # exit status of training stopped by a signal; shells use it for Ctrl-C


def add(commands: Commands) -> None:
    command = commands.add_parser("train", help="train a project with fairseq's trainer")
    add_project(command)
    command.add_argument(
        "--dry-run", action="store_true", help="print the equivalent fairseq-train command, and train nothing"
    )
    command.add_argument(
        "--resume", action="store_true", help="resume a run in the same folder even if its settings have changed"
    )
    command.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    from mmpt_plugin.tasks.project import load_training

    logging.getLogger("faiss").setLevel(logging.WARNING)  # it reports which processor it looks for
    project = load_training(arguments.project, arguments.overrides)
    try:
        from mmpt_plugin.fairseq_bridge.train import command_line, train
    except ModuleNotFoundError as error:
        raise ValueError(f"training needs fairseq, see README ({error})") from error

    if arguments.dry_run:
        say(command_line(project))
        return 0
    save_dir = Path(project["checkpoint"]["save_dir"])
    fairseq_log = any(override.lstrip("+").startswith("common.log_format=") for override in arguments.overrides)
    if train(project, resume=arguments.resume, fairseq_log=fairseq_log):
        log_file = (project.get("common") or {}).get("log_file") or (None if fairseq_log else save_dir / "train.log")
        say("\n".join([*results(save_dir, log_file), "next:", *next_commands(project, arguments, save_dir)]))
        return 0
    words = [
        arguments.project,
        *arguments.overrides,
        *(["--resume"] if arguments.resume else []),
        *user_dir_of(project),
    ]
    say(
        f"mmpt train: stopped and saved in {save_dir}; run the same command to resume:\n"
        f"  mmpt train {shlex.join(map(str, words))}",
        file=sys.stderr,
    )
    return INTERRUPTED


def results(save_dir: Path, log_file: object) -> list[str]:
    """Where the checkpoints, the log and the settings of a finished run are."""
    checkpoints = sorted(path.name for path in save_dir.glob("checkpoint_*.pt"))
    lines = [f"checkpoints  {save_dir}: {', '.join(checkpoints)}"]
    if log_file:
        lines.append(f"log          {log_file}")
    return [*lines, f"settings     {save_dir / 'project.yaml'}"]


def next_commands(project: dict[str, Any], arguments: argparse.Namespace, save_dir: Path) -> list[str]:
    """The commands that people run after a training, with what is not known in capital letters."""
    from mmpt_plugin.config import available

    task = project["task"]
    checkpoint, metrics = save_dir / "checkpoint_last.pt", save_dir / "metrics.json"
    folders = [str(project["model"]["_name"]), Path(arguments.project).parts[0], "videoclip"]
    projects = available("projects")
    evaluations = [f"{folder}/{name}" for folder in folders for name in ("evaluate", "zeroshot")]
    evaluation = next(name for name in evaluations if name in projects)
    commands = [
        ["evaluate", evaluation, f"task={benchmark_name(arguments)}", f"checkpoint={checkpoint}", "--json", metrics]
    ]
    log_file = (project.get("common") or {}).get("log_file") or save_dir / "train.log"
    retrieval = (task.get("benchmark") or {}).get("_name", "text_video_retrieval") == "text_video_retrieval"
    if retrieval and Path(log_file) == save_dir / "train.log":  # where the report looks for it
        videos = (task.get("dataset") or {}).get("videos") or "VIDEOS"
        commands.append(["report", save_dir, "--videos", videos])
    commands.append(["convert", checkpoint, "--out", "MODEL"])
    lines = [f"  mmpt {shlex.join(map(str, [*words, *user_dir_of(project)]))}" for words in commands]
    if "task=NAME" in commands[0]:
        lines.append("NAME is a benchmark: `mmpt list` shows them, as tasks/")
    if (save_dir / "checkpoint_best.pt").exists():
        lines.append("checkpoint_best.pt is the best on the validation videos: evaluate it only on other videos")
    return lines


def user_dir_of(project: dict[str, Any]) -> list[str]:
    """The option --user-dir of a project that has a user directory."""
    folder = (project.get("common") or {}).get("user_dir")
    return ["--user-dir", folder] if folder else []


def benchmark_name(arguments: argparse.Namespace) -> str:
    """The benchmark that the command line names, as a task to fine-tune on or to validate with; otherwise `NAME`."""
    from mmpt_plugin.config import available

    tasks = available("tasks")
    named = [override.partition("=") for override in arguments.overrides]
    names = [value for key, _, value in named if key == "task.benchmark"]
    if "finetune" in Path(arguments.project).parts:
        names += [value for key, _, value in named if key == "task"] + [Path(arguments.project).stem]
    return next((name for name in names if name in tasks), "NAME")
