"""Run a project with fairseq's trainer, or print the equivalent `fairseq-train` command."""

import logging
import os
import re
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.dataclass.configs import FairseqConfig
from fairseq.distributed import utils as distributed_utils
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from fairseq.trainer import Trainer
from fairseq.utils import import_user_module
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from rich.console import Console
from torch import cuda, multiprocessing
from torch.multiprocessing.spawn import ProcessRaisedException

from mmpt_plugin import registry, user_dir
from mmpt_plugin.config import with_log
from mmpt_plugin.errors import first_line, unknown_name
from mmpt_plugin.fairseq_bridge import install
from mmpt_plugin.fairseq_bridge.console import TrainingConsole, reporting
from mmpt_plugin.fairseq_bridge.dataclass import flow
from mmpt_plugin.fairseq_bridge.preemption import (
    STOP_SIGNALS,
    repair_last_checkpoint,
    stops_at_step_boundaries,
    stops_on_signals,
    was_stopped,
)
from mmpt_plugin.fairseq_bridge.run_folder import (
    check_restart,
    check_settings,
    check_starting_point,
    finished,
    starting_point,
    write_project,
)
from mmpt_plugin.fairseq_bridge.saving import saves_atomically
from mmpt_plugin.files import writing
from mmpt_plugin.signals import on_signals

logger = logging.getLogger(__name__)

OURS: dict[str, registry.Registry[Any]] = {
    "model": registry.models,
    "criterion": registry.criterions,
    "task": registry.tasks,
}
USER_ERROR = r"(?:[\w.]*ValueError|[\w.]*VideoError|[\w.]*DataNotThere|[\w.]*WriteFailed): (.*)"
PARTS: dict[str, registry.Registry[Any]] = {"dataset": registry.datasets, "sampler": registry.samplers}
CPU: dict[str, dict[str, Any]] = {
    "common": {"cpu": True},
    # Only the legacy data-parallel wrapper of fairseq works without device ids.
    "distributed_training": {"ddp_backend": "legacy_ddp", "distributed_backend": "gloo"},
}


@dataclass(frozen=True)
class RankInfo:
    """One process of a distributed run: its rank, device and rendezvous address, so fairseq infers none of them."""

    rank: int
    world_size: int
    device: int
    """Index of the process's GPU among those visible to it."""
    init_method: str
    """`tcp://host:port` of rank 0."""

    def apply_to(self, project: dict[str, Any]) -> dict[str, Any]:
        """The project with its section distributed_training filled in for this rank."""
        options: dict[str, Any] = {"distributed_world_size": self.world_size}
        if self.world_size > 1:
            options |= {
                "distributed_rank": self.rank,
                "distributed_init_method": self.init_method,
                "distributed_no_spawn": True,
                "device_id": self.device,
            }
        return project | {"distributed_training": dict(project.get("distributed_training") or {}) | options}


def train(project: dict[str, Any], *, resume: bool = False, fairseq_log: bool = False) -> bool:
    """Run fairseq's trainer on a composed project, with as many processes as it sets, by default one per GPU.

    The console shows the progress, and the log is written to `common.log_file`, by default train.log in the run's
    folder. With `fairseq_log`, the console shows fairseq's own log instead.
    Returns False if a signal (Ctrl-C, SIGTERM, SIGUSR2) stopped it early, after a checkpoint; a second Ctrl-C or
    SIGTERM ends it immediately. Raises ValueError if another process trains in the folder, or if it contains a run with
    other settings, unless `resume` is set. A finished run is not changed.
    """
    check_complete(project)
    project = project if fairseq_log else with_log(project)
    config = fairseq_config(project)
    alone = writing(Path(config.checkpoint.save_dir)) if int(os.environ.get("RANK", "0")) == 0 else nullcontext()
    with alone:
        return train_alone(project, config, resume=resume, fairseq_log=fairseq_log)


def train_alone(project: dict[str, Any], config: DictConfig, *, resume: bool, fairseq_log: bool) -> bool:
    """`train`, while no other command trains in the folder."""
    if not resume:
        check_settings(project)
    check_restart(project, requeued=False)
    save_dir = Path(config.checkpoint.save_dir)
    repair_last_checkpoint(save_dir)
    limits = {key: int(config.optimization[key] or 0) for key in ("max_epoch", "max_update")}
    if end := finished(save_dir, **limits):
        logger.warning(
            "%s is finished: %s. To train it further, raise optimization.max_epoch and pass --resume; to train "
            "again, choose another checkpoint.save_dir", save_dir, end,
        )  # fmt: skip
        return True
    check_starting_point(project["checkpoint"])
    write_project(project)
    if needs_gpu_for_fp16(project) and not cuda.is_available():
        logger.warning("no GPU: this trains in float32, in spite of common.fp16")
    processes = config.distributed_training.distributed_world_size
    if processes > 1 and not was_launched(cpu=config.common.cpu):
        return train_ranks(project, processes, fairseq_log=fairseq_log)
    run(config, fairseq_log=fairseq_log)
    return not was_stopped()


def run(config: DictConfig, *, fairseq_log: bool) -> None:
    """Train in this process, until the end or a signal."""
    with stops_on_signals(), stops_at_step_boundaries(), saves_atomically():
        if fairseq_log:
            distributed_utils.call_main(config, run_fairseq)
            return
        with reporting(config) as console:
            distributed_utils.call_main(config, run_fairseq, console=console)


def was_launched(*, cpu: bool) -> bool:
    """Whether torchrun or, with GPUs, srun has started the processes."""
    return "RANK" in os.environ or (not cpu and "SLURM_PROCID" in os.environ)


def train_ranks(project: dict[str, Any], processes: int, *, fairseq_log: bool) -> bool:
    """Start all processes of a run on this machine. fairseq's own spawning needs GPUs, and cannot be stopped."""
    init_method = f"tcp://localhost:{free_port()}"
    stopped = multiprocessing.get_context("spawn").Value("b", False)
    ranks = multiprocessing.spawn(  # type: ignore[attr-defined, no-untyped-call]
        run_rank, args=(project, processes, init_method, stopped, fairseq_log), nprocs=processes, join=False
    )

    def pass_on(number: int) -> None:
        for process in ranks.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    with on_signals(STOP_SIGNALS, pass_on):
        try:
            while not ranks.join():
                pass
        except ProcessRaisedException as error:
            raise user_error(error) or error from None
        finally:
            if sys.stderr.isatty():
                Console(stderr=True).show_cursor()  # rank 0, which hides it, may have been killed
    return not stopped.value


def user_error(error: Exception) -> ValueError | None:
    """A ValueError with the message that ends a rank's traceback, if the rank raised one of our user errors."""
    last = re.fullmatch(USER_ERROR, str(error).strip().splitlines()[-1])
    return ValueError(last[1]) if last else None


def run_rank(
    rank: int, project: dict[str, Any], processes: int, init_method: str, stopped: Any, fairseq_log: bool
) -> None:
    """Train in a spawned process; sets the shared value `stopped` if the ranks agreed to end early."""
    config = fairseq_config(RankInfo(rank, processes, device=rank, init_method=init_method).apply_to(project))
    run(config, fairseq_log=fairseq_log)
    stopped.value = was_stopped()


def train_rank(project: dict[str, Any], rank_info: RankInfo) -> bool:
    """Run one rank of a run whose processes are already started; False if it was stopped early."""
    config = fairseq_config(rank_info.apply_to(project))
    if rank_info.rank == 0:  # the other ranks wait for rank 0 before they look for a checkpoint
        write_project(project)
        repair_last_checkpoint(Path(config.checkpoint.save_dir))
        check_starting_point(project["checkpoint"])
    with stops_at_step_boundaries(), saves_atomically():
        distributed_utils.call_main(config, run_fairseq)
    return not was_stopped()


def run_fairseq(config: DictConfig, console: TrainingConsole | None = None, **kwargs: Any) -> None:
    """Call fairseq's training; ValueError if its checkpoint can't be restored, or if it diverges."""
    from fairseq_cli.train import main

    start = starting_point(config.checkpoint)
    if console is not None:
        console.start()
    with names_what_is_restored():
        try:
            main(config, **kwargs)
        except FloatingPointError as error:
            raise ValueError(
                f"the training{f' from {start}' if start else ''} has diverged ({first_line(error)}): lower "
                "optimization.lr, or set optimization.clip_norm"
            ) from error


@contextmanager
def names_what_is_restored() -> Iterator[None]:
    """Context manager in which a checkpoint that fairseq can't restore is a ValueError that names the file."""
    original = Trainer.load_checkpoint

    def load_checkpoint(trainer: Trainer, filename: str, *args: Any, **kwargs: Any) -> Any:
        try:
            return original(trainer, filename, *args, **kwargs)
        except Exception as error:
            if str(error).startswith("Cannot load model parameters"):
                raise ValueError(
                    f"{filename} does not fit the architecture of the project's model: choose another "
                    "checkpoint.save_dir, or the model that was trained there"
                ) from error
            reason = f"{type(error).__name__}, {first_line(error)}"
            raise ValueError(f"{filename} can't be restored, it is not a whole checkpoint: {reason}") from error

    Trainer.load_checkpoint = load_checkpoint
    try:
        yield
    finally:
        Trainer.load_checkpoint = original


def free_port() -> int:
    """A TCP port that is free now; another process may still take it."""
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        port: int = sock.getsockname()[1]
    return port


def check_complete(project: dict[str, Any]) -> None:
    """ValueError for a project that names no model, criterion or task."""
    for group, kind in OURS.items():
        kind.check_named(project.get(group) or {})


def fairseq_config(project: dict[str, Any]) -> DictConfig:
    """fairseq's complete configuration from a project; an unknown key is a ValueError."""
    config = OmegaConf.structured(FairseqConfig())
    OmegaConf.set_struct(config, True)
    for group, section in sections(project, cpu=not cuda.is_available()).items():
        lists = {key for key, value in (config.get(group) or {}).items() if OmegaConf.is_list(value)}
        for key in lists & section.keys():
            if not isinstance(section[key], list | int | float):
                raise ValueError(f"{group}.{key} must be a number or a list such as [1e-4], got {section[key]!r}")
        values = {
            key: [value] if key in lists and isinstance(value, int | float) else value for key, value in section.items()
        }
        try:
            config = OmegaConf.merge(config, {group: values})
        except OmegaConfBaseException as error:
            raise ValueError(f"section '{group}': {first_line(error)}") from error
    whole = DictConfig(OmegaConf.to_container(config, resolve=True, enum_to_str=True))
    OmegaConf.set_struct(whole, True)
    return whole


def sections(project: dict[str, Any], *, cpu: bool) -> dict[str, Any]:
    """The project's values for fairseq's groups, with the sampler inside the task and, on a CPU, the CPU's settings."""
    for group, section in project.items():
        if section is not None and not isinstance(section, dict):
            raise ValueError(f"'{group}' must be a section, as in {group}.key=value, got {section!r}")
    groups = {group: dict(section or {}) for group, section in project.items()}
    if "sampler" in groups:
        groups.setdefault("task", {})["sampler"] = groups.pop("sampler")
    schedule = groups.get("lr_scheduler", {})
    warmup_fraction = schedule.pop("warmup_fraction", None)
    if schedule.get("_name") == "polynomial_decay" and schedule.get("total_num_update") is None:
        schedule["total_num_update"] = 0  # until the end of training; fairseq requires a value
    common = groups.setdefault("common", {})
    common["user_dir"] = str(load_user_dir(common.get("user_dir")))
    install()
    if cpu:
        for group, values in CPU.items():
            groups[group] = groups.get(group, {}) | values
        if needs_gpu_for_fp16(project):
            groups["common"]["fp16"] = False
    for group, section in groups.items():
        check_keys(group, section)
        groups[group] = current_keys(group, section)
    if warmup_fraction is not None:  # not a key of fairseq's schedules: the task converts it to warmup_updates
        groups["task"]["warmup_fraction"] = warmup_fraction
    return {
        group: {
            key: flow(value) if isinstance(value, dict) or (group in OURS and isinstance(value, list)) else value
            for key, value in section.items()
            if value is not None
        }
        for group, section in groups.items()
    }


def needs_gpu_for_fp16(project: Mapping[str, Any]) -> bool:
    """Whether a project trains in fp16 with the optimizer of fairseq that flattens gradients, which needs a GPU."""
    common = project.get("common") or {}
    return bool(common.get("fp16")) and not common.get("fp16_no_flatten_grads")


def load_user_dir(folder: str | None) -> Path:
    """Import the user directory of a project, and return it; without one, it is this package."""
    if folder is None:
        return user_dir.PACKAGE
    user_dir.load(folder)
    path = Path(folder).expanduser().resolve()
    imported: set[str] = getattr(import_user_module, "memo", set())
    import_user_module.memo = {*imported, str(path)}  # fairseq would import a file as if it were a folder
    return path


def check_keys(group: str, section: dict[str, Any]) -> None:
    """ValueError for an unknown group, component or key; the message suggests the closest name."""
    plain_groups = {field.name: field.type for field in fields(FairseqConfig) if is_dataclass(field.type)}
    if group in plain_groups:
        known = [field.name for field in fields(plain_groups[group])]
    elif group in OURS:
        OURS[group][component_name(group, section, sorted(OURS[group]))].parse(section)
        for key, parts in PARTS.items():
            if group == "task" and key in section:
                parts[component_name(key, section[key], sorted(parts))].parse(section[key])
        return
    elif group in REGISTRIES:
        typed = [name for name, config in REGISTRIES[group]["dataclass_registry"].items() if config is not None]
        name = component_name(group, section, typed)  # others of fairseq have flags only
        known = [field.name for field in fields(component_dataclass(group, name))]
    else:
        raise ValueError(unknown_name("section", group, [*plain_groups, *OURS, *REGISTRIES, "sampler"]))
    for key, value in section.items():
        if value is not None and key not in known:
            raise ValueError(unknown_name("key", f"{group}.{key}", known, guess=key))


def current_keys(group: str, section: dict[str, Any]) -> dict[str, Any]:
    """A section that `check_keys` accepts, under the current names of renamed keys."""
    if group not in OURS:
        return section
    return registry.with_new_names(OURS[group][section["_name"]].config, section, section["_name"])


def component_name(group: str, section: dict[str, Any], possible: list[str]) -> str:
    """The section's `_name`; ValueError unless it is one of `possible`."""
    name = section.get("_name")
    if name not in possible:
        raise ValueError(unknown_name(group, str(name), possible))
    return str(name)


def component_dataclass(group: str, name: str) -> Any:
    """The configuration dataclass that fairseq has registered for a component."""
    ours = {
        "model": MODEL_DATACLASS_REGISTRY,
        "criterion": CRITERION_DATACLASS_REGISTRY,
        "task": TASK_DATACLASS_REGISTRY,
    }
    return ours[group][name] if group in ours else REGISTRIES[group]["dataclass_registry"][name]


def command_line(project: dict[str, Any], *, cpu: bool | None = None) -> str:
    """The `fairseq-train --user-dir` command equivalent to `train(project)`, for this machine or one with GPUs."""
    fairseq_config(project)
    groups = sections(project, cpu=not cuda.is_available() if cpu is None else cpu)
    if groups["common"].get("bf16"):
        raise ValueError("fairseq-train supports --bf16 only on TPUs: use mmpt train, or set common.bf16=false")
    words = ["fairseq-train"]
    if groups["common"]["user_dir"].endswith(".py"):  # fairseq can only import a folder
        words = ["env", f"{user_dir.VARIABLE}={groups['common']['user_dir']}", "fairseq-train"]
        groups["common"]["user_dir"] = str(user_dir.PACKAGE)
    for group, section in groups.items():
        if "_name" in section:
            option = "arch" if group == "model" else group.replace("_", "-")
            words += [f"--{option}", section["_name"]]
            dataclass = component_dataclass(group, section["_name"])
        else:
            dataclass = next(field.type for field in fields(FairseqConfig) if field.name == group)
        words += flags(section, dataclass)
    return shlex.join(words)


def flags(section: dict[str, Any], dataclass: Any) -> list[str]:
    """`--name value` for values that differ from fairseq's default; a switch has no value."""
    defaults = {
        field.name: field.default if field.default_factory is MISSING else field.default_factory()
        for field in fields(dataclass)
    }
    words = []
    for key, value in section.items():
        if key == "_name" or value is None or value == defaults[key]:
            continue
        words.append(f"--{key.replace('_', '-')}")
        if not isinstance(value, bool):
            words.append(str(value))
    return words
