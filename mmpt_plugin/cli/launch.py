"""`mmpt launch`: run a command as a job on SLURM."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from mmpt_plugin.cli.arguments import Commands

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
        "--dry-run", action="store_true", help="print the batch script and each rank's command, and submit nothing"
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
    profile = launch.load_profile(arguments.profile, arguments.for_profile)
    if arguments.parts > 1 and not hasattr(command, "part"):
        raise ValueError("--parts divides videos into parts: it is only for extract and cache-frames")
    if command.command == "train":
        given = [] if command.user_dir is None else [f"common.user_dir='{command.user_dir}'"]
        plans = launch.plan_training(command.project, [*command.overrides, *given], profile, resume=arguments.resume)
    else:
        inputs = launched_videos(command, arguments.parts)
        plans = launch.plan_command(arguments.words, RUNS, parts=arguments.parts, inputs=inputs)
    logs = (plans[0].folder if len(plans) == 1 else plans[0].folder.parent) / "slurm"
    if arguments.parts > 1:
        plans = launch.unfinished(plans)
        print(
            f"{len(plans)} of {arguments.parts} parts to do: {', '.join(plan.folder.name for plan in plans) or 'none'}"
        )
    name = f"mmpt-{command.command}"
    if arguments.dry_run:
        print(launch.dry_run(plans, profile, name=name, logs=logs))
        return 0
    launched = launch.submit_plans(plans, profile, name=name, logs=logs) if plans else []
    for job in launched:
        print(f"job {job.job_id}: {job.folder}, log {job.log}")
    if not arguments.wait:
        return 0
    states = launch.wait(launched)
    for job, state in zip(launched, states, strict=True):
        print(f"job {job.job_id}: {state} {launch.failure(job)}".rstrip())
    return 0 if set(states) <= {"COMPLETED"} else 1


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
