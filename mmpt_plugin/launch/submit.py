"""Submit jobs to SLURM or to local processes: trainings, sweeps, arrays of a command."""

import contextlib
import hashlib
import itertools
import os
import shutil
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import SlurmExecutor

from mmpt_plugin.config import with_log
from mmpt_plugin.errors import first_line
from mmpt_plugin.hardware import bf16_problem
from mmpt_plugin.launch.batch_file import only_the_batch_file_counts, slurm_parameters
from mmpt_plugin.launch.jobs import CommandJob, TrainingJob
from mmpt_plugin.launch.local import controller_line
from mmpt_plugin.launch.profile import Profile
from mmpt_plugin.launch.watch import Launched, is_over, state, states, stop_command
from mmpt_plugin.tasks import preflight
from mmpt_plugin.tasks.project import load_training

# A run is requeued as long as it makes progress (survival.note_start), without submitit's limit on requeues.
NO_LIMIT = 10**6


@dataclass(frozen=True)
class Plan:
    """A job to submit: what it calls, and the folder that it writes to, which identifies it."""

    folder: Path
    call: TrainingJob | CommandJob
    words: list[str]
    """The equivalent `mmpt` command without SLURM."""
    inputs: str = ""


def plan_training(project: str, overrides: Sequence[str], profile: Profile, *, resume: bool = False) -> list[Plan]:
    """One training, or one for each combination of `key=a,b`, each in its own folder below checkpoint.save_dir.

    Raises ValueError if a folder contains a run with other settings, unless `resume` is set.
    """
    plans = []
    for chosen in combinations(overrides):
        composed = load_training(project, chosen)
        if swept := [override for override in chosen if override not in overrides]:
            folder = Path(composed["checkpoint"]["save_dir"]) / ",".join(swept).replace("/", "_")
            chosen = [*chosen, f"checkpoint.save_dir='{folder}'"]
            composed = load_training(project, chosen)
        folder = Path(composed["checkpoint"]["save_dir"])
        composed = with_log(composed)
        check_trainable(composed, profile, resume=resume)
        plans.append(Plan(folder, TrainingJob(composed, profile.signal_seconds), ["train", project, *chosen]))
    return plans


def combinations(overrides: Sequence[str]) -> Iterator[list[str]]:
    """`a=1,2 b=3` -> `a=1 b=3` and `a=2 b=3`. As in Hydra, a comma in brackets or quotes belongs to the value."""
    parser = OverridesParser.create()
    choices = []
    for override in overrides:
        try:
            parsed = parser.parse_override(override)
        except HydraException as error:
            raise ValueError(f"override '{override}': {first_line(error)}") from error
        values = parsed.sweep_string_iterator() if parsed.is_sweep_override() else ()
        choices.append([f"{parsed.get_key_element()}={value}" for value in values] or [override])
    return (list(choice) for choice in itertools.product(*choices))


def check_trainable(project: dict[str, Any], profile: Profile, *, resume: bool) -> None:
    """ValueError, before submission, for problems that would otherwise appear after hours in the queue."""
    try:
        from mmpt_plugin.fairseq_bridge.run_folder import check_restart, check_settings
        from mmpt_plugin.fairseq_bridge.train import check_complete, fairseq_config
    except ModuleNotFoundError as error:
        raise ValueError(f"training needs fairseq, see README ({error})") from error
    check_complete(project)
    fairseq_config(project)
    check_idle(Path(project["checkpoint"]["save_dir"]))
    if not resume:
        check_settings(project)
    check_restart(project, requeued=True)
    if profile.compute_capability and project["common"].get("bf16"):
        major, minor = map(int, profile.compute_capability.split("."))
        if problem := bf16_problem((major, minor)):
            raise ValueError(f"common.bf16 is set, but the profile's GPU {problem}")


def problems_of(plans: Sequence[Plan]) -> list[str]:
    """One line for each thing that would stop the trainings: missing data, weights or tokenizers, no disk space."""
    found: dict[str, None] = {}
    checked = []
    for plan in plans:
        if isinstance(plan.call, TrainingJob):
            needs = [plan.call.project.get(section) for section in ("model", "task", "sampler", "dataset")]
            if needs not in checked:  # the runs of a sweep mostly need the same
                checked.append(needs)
                found |= dict.fromkeys(preflight.problems(plan.call.project))
    if any("hf download" in line for line in found):
        found["nodes without internet need HF_HUB_OFFLINE=1, and the download in an HF_HOME that they can read"] = None
    return list(found)


def plan_command(words: Sequence[str], root: Path, *, parts: int = 1, inputs: Sequence[Path] = ()) -> list[Plan]:
    """An `mmpt` command as one job, or as an array of jobs that each do one part (`--part 3/16`).

    The same command always has the same folder, so a second launch finds the results of the first.
    """
    shares = [[*words, "--part", f"{number}/{parts}"] for number in range(1, parts + 1)] if parts > 1 else [[*words]]
    folder = root / f"{words[0]}-{digest(words)[:8]}"
    return [
        Plan(
            folder / f"part-{number}-of-{parts}" if parts > 1 else folder,
            CommandJob(share),
            share,
            digest(map(str, inputs)),
        )
        for number, share in enumerate(shares, start=1)
    ]


def digest(words: Any) -> str:
    """The SHA-256, in hexadecimal, of words joined by line breaks."""
    return hashlib.sha256("\n".join(words).encode()).hexdigest()


def unfinished(plans: Sequence[Plan]) -> list[Plan]:
    """The plans that have not been completed with the same inputs."""
    return [plan for plan in plans if not is_done(Launched.read(plan.folder), plan)]


def is_done(before: Launched | None, plan: Plan) -> bool:
    """Whether the earlier job was completed with the same inputs."""
    return before is not None and before.inputs == plan.inputs and state(before) == "COMPLETED"


def submit_plans(plans: Sequence[Plan], profile: Profile, *, name: str, logs: Path) -> list[Launched]:
    """Submit the jobs, several as one array, and record in each folder which job uses it."""
    for plan in plans:
        check_idle(plan.folder)
    logs = logs.resolve()
    machine = executor(profile, name=name, logs=logs)
    array = machine.batch() if len(plans) > 1 else contextlib.nullcontext()
    try:
        with only_the_batch_file_counts(profile), output_to(logs / "submit.log"), array:
            jobs = [machine.submit(plan.call) for plan in plans]
    except (FailedJobError, FailedSubmissionError) as error:
        raise ValueError(f"SLURM refuses the job: {'; '.join(str(error).splitlines())}") from error
    launched = []
    for plan, job in zip(plans, jobs, strict=True):
        tasks = profile.nodes * profile.tasks
        record = Launched(str(plan.folder), job.job_id, profile.executor, tasks, str(logs), plan.words, plan.inputs)
        record.write()
        launched.append(record)
    return launched


def check_idle(folder: Path) -> None:
    """ValueError if a running or pending job uses the folder."""
    if (before := Launched.read(folder)) and not is_over(state(before)):
        raise ValueError(
            f"{folder}: job {before.job_id} there is {state(before)}; wait for it, or stop it: {stop_command([before])}"
        )


@contextlib.contextmanager
def output_to(path: Path) -> Iterator[None]:
    """Redirect stdout and stderr, also of processes started within: a local job must not keep the terminal open."""
    path.parent.mkdir(parents=True, exist_ok=True)
    before = os.dup(1), os.dup(2)
    try:
        with path.open("ab") as file:
            os.dup2(file.fileno(), 1)
            os.dup2(file.fileno(), 2)
        yield
    finally:
        for number, descriptor in enumerate(before, start=1):
            os.dup2(descriptor, number)
            os.close(descriptor)


def executor(profile: Profile, *, name: str, logs: Path) -> Any:
    """The submitit executor with the profile's resources; ValueError if it needs SLURM, which is not installed."""
    if profile.executor == "slurm":
        if shutil.which("srun") is None:
            raise ValueError("SLURM is not installed here: launch from a login node, or locally with --profile local")
        machine: Any = SlurmExecutor(logs, max_num_timeout=NO_LIMIT, python=profile.python)
        machine.update_parameters(**slurm_parameters(profile, name=name, logs=logs))
        return machine
    machine = submitit.LocalExecutor(logs, max_num_timeout=NO_LIMIT, python=profile.python)
    machine.update_parameters(
        timeout_min=profile.minutes,
        tasks_per_node=profile.tasks,
        gpus_per_node=profile.gpus_per_node,
        signal_delay_s=profile.signal_seconds,
        stderr_to_stdout=True,
        setup=[controller_line(profile.setup, profile.array_parallelism, logs)],
    )
    return machine


def wait(launched: Sequence[Launched]) -> list[str]:
    """Wait until all jobs have ended, and return their final states."""
    while not all(map(is_over, found := states(launched))):
        time.sleep(2)
    return found
