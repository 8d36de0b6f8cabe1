"""`mmpt launch`: run a command as a job on SLURM."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpt_plugin.cli.arguments import Commands
from mmpt_plugin.terminal import say

RUNS = Path("runs")
COMMANDS_AS_JOBS = ("train", "extract", "cache-frames", "embed", "evaluate")


def add(commands: Commands) -> None:
    command = commands.add_parser(
        "launch",
        help="run a project or a command on SLURM",
        usage="mmpt launch [train] PROJECT --profile slurm/NAME [key=value ...] [--user-dir DIR] [--dry-run] [--wait]\n"
        "       mmpt launch extract|embed|evaluate ... --profile slurm/NAME [--parts N] [--dry-run] [--wait]",
        description="Train a project, or run one of these commands, as a job that survives time limits, preemption and "
        "node failures. key=a,b trains once for each value; slurm.KEY=VALUE overrides a key of the profile.",
    )
    command.add_argument(
        "--profile", required=True, help="a YAML file, or the name of a profile such as v100x8 (see mmpt list)"
    )
    command.add_argument(
        "--parts", type=int, default=1, metavar="N", help="submit an array of N jobs, each for a part of the videos"
    )
    command.add_argument(
        "--parallel", type=int, metavar="N", help="run at most N jobs of a sweep or an array at the same time"
    )
    command.add_argument(
        "--dry-run", action="store_true", help="print the batch file and the command of a rank, and submit nothing"
    )
    command.add_argument(
        "--no-check",
        action="store_true",
        help="don't look for the data, weights, tokenizers and disk space of a training first: only the nodes see them",
    )
    command.add_argument(
        "--resume", action="store_true", help="resume a run in the same folder even if its settings have changed"
    )
    command.add_argument(
        "--wait", action="store_true", help="wait until all jobs have ended; exit with status 1 if one failed"
    )
    command.set_defaults(run=run)


def as_command(words: list[str]) -> list[str]:
    """The command to launch; without a name of COMMANDS_AS_JOBS it is `train`."""
    return words if words[:1] and words[0] in COMMANDS_AS_JOBS else ["train", *words]


def run(arguments: argparse.Namespace) -> int:
    launch, command = launching(), arguments.launched
    parallel = [f"slurm.array_parallelism={arguments.parallel}"] if arguments.parallel is not None else []
    profile = launch.load_profile(arguments.profile, [*arguments.for_profile, *parallel])
    plans = planned(arguments, profile)
    folder = plans[0].folder if len(plans) == 1 else plans[0].folder.parent
    job = {"name": f"mmpt-{command.command}", "logs": folder / "slurm"}
    if arguments.parts > 1:
        plans = launch.unfinished(plans)
        say(f"{len(plans)} of {arguments.parts} parts to do: {', '.join(plan.folder.name for plan in plans) or 'none'}")
    problems = [] if arguments.no_check else launch.problems_of(plans)
    for problem in problems:
        say(f"mmpt launch: {problem}", file=sys.stderr)
    if arguments.dry_run:
        say(launch.dry_run(plans, profile, **job))
        return 0
    if problems:
        say("mmpt launch: nothing was launched; --no-check launches it all the same", file=sys.stderr)
        return 2
    launched = launch.submit_plans(plans, profile, **job) if plans else []
    for each in launched:
        say(f"job {each.job_id}: {each.folder}, log {each.log}")
    if launched:
        say(f"watch: mmpt jobs {folder} --watch\nstop: {launch.stop_command(launched)}")
    if not arguments.wait:
        return 0
    states = launch.wait(launched)
    for each, state in zip(launched, states, strict=True):
        say(f"job {each.job_id}: {state} {launch.failure(each, state)}".rstrip())
    return 0 if set(states) <= {"COMPLETED"} else 1


def planned(arguments: argparse.Namespace, profile: Any) -> list[Any]:
    """The jobs of the command; ValueError for what is wrong with the command itself."""
    launch, command = launching(), arguments.launched
    if arguments.parts > 1 and not hasattr(command, "part"):
        raise ValueError("--parts divides videos into parts: it is only for extract and cache-frames")
    if command.command == "train":
        given = [] if command.user_dir is None else [f"common.user_dir='{command.user_dir}'"]
        overrides = [*command.overrides, *given]
        return list(launch.plan_training(command.project, overrides, profile, resume=arguments.resume))
    checkpoint = getattr(command, "checkpoint", None)
    if command.command == "evaluate":
        from mmpt_plugin.config import load_project

        checkpoint = load_project(command.project, command.overrides).get("checkpoint")
    if checkpoint is not None and not arguments.no_check and not Path(checkpoint).exists():
        raise ValueError(f"there is no checkpoint {checkpoint}; --no-check launches it all the same")
    inputs = launched_videos(command, arguments.parts)
    return list(launch.plan_command(arguments.words, RUNS, parts=arguments.parts, inputs=inputs))


def launching() -> Any:
    """The package `mmpt_plugin.launch`; ValueError if submitit is not installed."""
    try:
        import submitit  # noqa: F401

        from mmpt_plugin import launch
    except ModuleNotFoundError as error:
        raise ValueError(f"jobs need submitit: pip install 'mmpt_plugin[slurm]' ({error})") from error
    return launch


def launched_videos(command: argparse.Namespace, parts: int) -> Sequence[Path]:
    """The videos of an extraction, with which a second launch recognizes the parts that are done."""
    if command.command not in ("extract", "cache-frames"):
        return []
    from mmpt_plugin.video.store import list_videos

    videos = list_videos(command.videos, out=command.out)
    if parts > len(videos):
        raise ValueError(f"--parts must be at most the number of videos, {len(videos)}, got {parts}")
    return videos
