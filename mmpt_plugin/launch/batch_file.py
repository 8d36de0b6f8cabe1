"""The batch file of a job: a profile in the terms of sbatch, and the lines around srun."""

import contextlib
import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from submitit.slurm.slurm import SlurmExecutor

from mmpt_plugin.launch.options import gpus_of, lines_of, options
from mmpt_plugin.launch.profile import Profile
from mmpt_plugin.launch.survival import requeue_lines

# Variables of sbatch whose names are not those of their options.
VARIABLES = {
    "time": "SBATCH_TIMELIMIT",
    "mem": "SBATCH_MEM_PER_NODE",
    "array": "SBATCH_ARRAY_INX",
    "requeue": "SBATCH_NO_REQUEUE",
}
OPTION = re.compile(r"^#SBATCH --([\w-]+)", re.M)


def slurm_parameters(profile: Profile, *, name: str, logs: Path) -> dict[str, Any]:
    """submitit's parameters of a job; ValueError for a folder whose name sbatch would misread."""
    if any(character in str(logs) for character in "%\\\n"):
        raise ValueError(f"the folder must not contain %, backslashes or line breaks, which sbatch misreads: {logs}")
    given = {key: getattr(profile, key) for key in ("partition", "account", "qos", "constraint", "exclude")}
    if profile.gpus_per_node and profile.gres != "none" and not gpus_of(profile.gres):
        given["gpus_per_node"] = ":".join([*filter(None, [profile.gpu_type]), str(profile.gpus_per_node)])
    if profile.gres != "none":
        given["gres"] = profile.gres
    if not isinstance(profile.mem_gb, str):
        given["mem"] = f"{round(1024 * profile.mem_gb)}MB"
    extra, srun = options("extra", profile.extra), options("extra_srun", profile.extra_srun)
    return {
        "job_name": name,
        "nodes": profile.nodes,
        "ntasks_per_node": profile.tasks,
        "cpus_per_task": profile.cpus_per_task,
        "time": profile.minutes,
        "signal_delay_s": profile.signal_seconds,
        "array_parallelism": profile.array_parallelism,
        "stderr_to_stdout": True,
        "wckey": None,  # submitit's default is one that few clusters know
        "setup": lines_of(profile.setup) or None,
        # Since SLURM 22.05 srun doesn't inherit --cpus-per-task from sbatch.
        "srun_args": ["--kill-on-bad-exit=1", f"--cpus-per-task={profile.cpus_per_task}", *map(flag, srun.items())],
        "teardown": requeue_lines(logs),
        "additional_parameters": {"requeue": True} | {key.replace("-", "_"): value for key, value in extra.items()},
        **{key: value for key, value in given.items() if value},
    }


def flag(option: tuple[str, str | bool]) -> str:
    """An option as a word of the command line."""
    name, value = option
    return f"--{name}" if value is True else f"--{name}={value}"


class WithoutSlurm(SlurmExecutor):
    """Writes batch files on machines without SLURM."""

    @classmethod
    def affinity(cls) -> int:
        """Report SLURM as available; otherwise submitit refuses to create the executor."""
        return 1


def batch_file(profile: Profile, *, name: str, logs: Path, num_jobs: int) -> str:
    """The batch file of a job, or of an array of jobs."""
    machine = WithoutSlurm(logs, python=profile.python)
    machine.update_parameters(**slurm_parameters(profile, name=name, logs=logs))
    if num_jobs > 1:
        machine.parameters["map_count"] = num_jobs
    return machine._make_submission_file_text(machine._submitit_command_str, "")


@contextlib.contextmanager
def only_the_batch_file_counts(profile: Profile) -> Iterator[None]:
    """Hide variables that sbatch prefers to the batch file, such as SBATCH_PARTITION, for the options that it sets.

    Also hide the variables of the job in which this process runs, if any: the new job would inherit its binding.
    """
    text = batch_file(profile, name="", logs=Path("/"), num_jobs=2)
    hidden = {VARIABLES.get(name, f"SBATCH_{name.replace('-', '_').upper()}") for name in re.findall(OPTION, text)}
    if "SLURM_JOB_ID" in os.environ:
        of_this_job = ("SLURM_", "SLURMD_", "SRUN_", "SUBMITIT_")
        hidden |= {name for name in os.environ if name.startswith(of_this_job)} - {"SLURM_CONF"}
    kept = {name: os.environ.pop(name) for name in hidden & os.environ.keys()}
    try:
        yield
    finally:
        os.environ.update(kept)
