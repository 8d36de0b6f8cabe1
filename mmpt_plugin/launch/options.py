"""The options of sbatch and srun in a profile: which key sets each, and what a batch file can't hold."""

import math
import re
import shlex
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from mmpt_plugin.launch.profile import Profile

# Options of sbatch, and the key that sets each.
OF_KEYS = {
    **{name: name for name in ("partition", "account", "qos", "constraint", "exclude", "nodes", "gres")},
    **{"ntasks": "tasks_per_node", "ntasks-per-node": "tasks_per_node", "cpus-per-task": "cpus_per_task"},
    **{"gpus-per-node": "gpus_per_node and slurm.gpu_type", "mem": "mem_gb", "time": "hours"},
    **{"signal": "signal_seconds", "array": "array_parallelism"},
}
# Options that a job needs to have as they are, to be found again and requeued.
FIXED = ("output", "error", "open-mode", "requeue", "no-requeue", "parsable", "quiet", "test-only", "wrap")
FIXED_FOR_SRUN = ("output", "error", "unbuffered", "kill-on-bad-exit", "label", "nodes", "ntasks", "ntasks-per-node")

TEXTS = ("partition", "account", "qos", "constraint", "exclude", "gres", "gpu_type", "python")


def check_options(profile: "Profile") -> None:
    """ValueError, naming the key, for a value that sbatch, srun or the shell would refuse or misread."""
    for key in TEXTS:
        if (text := getattr(profile, key)) is not None:
            check_text(key, text)
    if profile.gpu_type and (re.search(r"[:,\s]", profile.gpu_type) or profile.gres):
        raise ValueError(f"slurm.gpu_type must be one word such as a100, without slurm.gres, got '{profile.gpu_type}'")
    if isinstance(profile.mem_gb, str) and profile.mem_gb != "none":
        raise ValueError(f"slurm.mem_gb must be a number or none, got '{profile.mem_gb}'")
    if not isinstance(profile.mem_gb, str) and not 0 <= profile.mem_gb < math.inf:
        raise ValueError(f"slurm.mem_gb must be at least 0, got {profile.mem_gb}")
    for line in lines_of(profile.setup):
        if line.startswith(("#SBATCH", "#PBS", "#BSUB")):  # sbatch reads all three
            raise ValueError(f"slurm.setup holds shell lines; set options of sbatch in slurm.extra, got '{line}'")
    try:
        if profile.python is not None and not shlex.split(profile.python):
            raise ValueError("an empty command")
    except ValueError as error:
        raise ValueError(f"slurm.python: {error}, got {profile.python!r}") from error
    check_extra(profile)


def check_extra(profile: "Profile") -> None:
    """ValueError for an option in `extra` or `extra_srun` that another key sets, or that has to stay as it is."""
    extra, srun = options("extra", profile.extra), options("extra_srun", profile.extra_srun)
    for name in extra:
        if name in OF_KEYS:
            raise ValueError(f"slurm.extra.{name}: set slurm.{OF_KEYS[name]} instead")
        if name in ("mem-per-cpu", "mem-per-gpu") and profile.mem_gb != "none":
            raise ValueError(f"slurm.extra.{name} replaces --mem: set slurm.mem_gb=none with it")
    if "cpus-per-task" in srun:
        raise ValueError("slurm.extra_srun.cpus-per-task: set slurm.cpus_per_task instead")
    for key, given, fixed in (("extra", extra, FIXED), ("extra_srun", srun, FIXED_FOR_SRUN)):
        for name in given:
            if name in fixed:
                raise ValueError(f"slurm.{key}.{name} can't be set: mmpt launch relies on its own")


def options(key: str, given: Mapping[str, Any]) -> dict[str, str | bool]:
    """Options by long name, `{exclusive: true}` as a flag; without those that are false or null.

    ValueError for a name or a value that isn't an option's.
    """
    found: dict[str, str | bool] = {}
    for name, value in given.items():
        where = f"{key}.{name}"
        if not re.fullmatch(r"[a-z][a-z0-9_-]+", name):
            raise ValueError(f"slurm.{where}: write the long name of an option without dashes, such as reservation")
        if not isinstance(value, str | int | float | None):
            raise ValueError(f"slurm.{where} must be text, a number, true or false, got {value!r}")
        if value is None or value is False:
            continue
        check_text(where, str(value))
        found[name.replace("_", "-")] = True if value is True else str(value)
    return found


def check_text(key: str, text: str) -> None:
    """ValueError for a control character, such as a line break, or a backslash: sbatch can't read them in an option."""
    if re.search(r"[\x00-\x1f\x7f\\]", text):
        raise ValueError(f"slurm.{key} must not contain line breaks or backslashes, got {text!r}")


def lines_of(setup: list[str]) -> list[str]:
    """The shell lines; an item of several lines, as YAML's `|` makes it, is split."""
    return [line for item in setup for line in item.splitlines()]


def gpus_of(gres: str | None) -> int:
    """How many GPUs `gpu:a100:4` or `gpu:4,nvme:1` asks for; 0 without GPUs."""
    requests = [request.split(":") for request in (gres or "").split(",")]
    return sum(int(last) if (last := words[-1]).isdigit() else 1 for words in requests if words[0] == "gpu")
