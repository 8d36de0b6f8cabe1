"""`mmpt train`: train a project with fairseq's trainer."""

import argparse
import sys

from mmpt_plugin.cli.arguments import Commands, add_project

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
    from mmpt_plugin.config import load_project, plain
    from mmpt_plugin.tasks.finetuning import fine_tuned

    project = fine_tuned(plain(load_project(arguments.project, arguments.overrides)))
    try:
        from mmpt_plugin.fairseq_bridge.train import command_line, train
    except ModuleNotFoundError as error:
        raise ValueError(f"training needs fairseq, see README ({error})") from error

    if arguments.dry_run:
        print(command_line(project))
        return 0
    if train(project, resume=arguments.resume):
        return 0
    save_dir = project["checkpoint"]["save_dir"]
    print(f"mmpt train: stopped and saved in {save_dir}; run the same command to resume", file=sys.stderr)
    return INTERRUPTED
