"""Jobs on SLURM, or on this machine as if it were a cluster: where they run, what they do, how they survive."""

from mmpt_plugin.launch.profile import Profile, load_profile
from mmpt_plugin.launch.submit import dry_run, plan_command, plan_training, submit, unfinished, wait
from mmpt_plugin.launch.watch import describe_jobs, failure

__all__ = [
    "Profile",
    "describe_jobs",
    "dry_run",
    "failure",
    "load_profile",
    "plan_command",
    "plan_training",
    "submit",
    "unfinished",
    "wait",
]
