"""What `mmpt launch --dry-run` prints: the batch file, and the command of one rank of one job."""

import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from mmpt_plugin.launch.batch_file import batch_file
from mmpt_plugin.launch.jobs import CommandJob
from mmpt_plugin.launch.profile import Profile
from mmpt_plugin.launch.submit import Plan

LISTED = 4


def dry_run(plans: Sequence[Plan], profile: Profile, *, name: str, logs: Path) -> str:
    """The batch file, the first job's command, and how other ranks and jobs differ. Nothing is written or submitted."""
    if not plans:
        return ""
    first, others = plans[0], plans[1:]
    lines = [f"# {first.folder}", *rank_commands(first, profile)]
    lines += [f"# {plan.folder}: mmpt {shlex.join(plan.words)}" for plan in others[:LISTED]]
    if others[LISTED:]:
        lines.append(f"# and {len(others) - LISTED} more, up to {others[-1].folder}")
    if profile.executor == "slurm":
        lines = [batch_file(profile, name=name, logs=logs.resolve(), num_jobs=len(plans)), *lines]
    return "\n".join(lines)


def rank_commands(plan: Plan, profile: Profile) -> Iterator[str]:
    """The job's command, or the `fairseq-train` command of rank 0 and the options in which the other ranks differ."""
    if isinstance(plan.call, CommandJob):
        yield f"mmpt {shlex.join(plan.words)}"
        return
    from mmpt_plugin.fairseq_bridge.train import RankInfo, command_line

    project, ranks = dict(plan.call.project), profile.nodes * profile.tasks
    if project["common"].get("bf16"):
        yield "# the job itself trains in bf16, for which fairseq-train has no flag (its --bf16 is for TPUs)"
        project["common"] = project["common"] | {"bf16": False}
    rank_info = RankInfo(0, ranks, device=0, init_method="tcp://FIRST_NODE:PORT")
    yield command_line(rank_info.apply_to(project), cpu=profile.gpus_per_node == 0)
    if ranks > 1:
        device = f" --device-id $((RANK % {profile.tasks}))" if profile.tasks > 1 else ""
        yield f"# this is rank 0; ranks 1 to {ranks - 1} add --distributed-rank $RANK{device}"
