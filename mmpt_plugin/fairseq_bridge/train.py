"""A project run by fairseq's own trainer, and the `fairseq-train` command that does the same."""

import shlex
import socket
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.dataclass.configs import FairseqConfig
from fairseq.distributed import utils as distributed_utils
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException
from torch import cuda, multiprocessing

from mmpt_plugin import registry
from mmpt_plugin.checkpoint import write_whole
from mmpt_plugin.fairseq_bridge import install
from mmpt_plugin.fairseq_bridge.dataclass import flow
from mmpt_plugin.fairseq_bridge.resuming import mend_last_checkpoint
from mmpt_plugin.fairseq_bridge.stopping import stop, stops_at_step_boundaries
from mmpt_plugin.registry import unknown

USER_DIR = Path(__file__).parents[1]
OURS = {"model": registry.models, "criterion": registry.criterions, "task": registry.tasks}
PARTS = {"dataset": registry.datasets, "sampler": registry.samplers}
CPU: dict[str, dict[str, Any]] = {
    "common": {"cpu": True},
    # Of fairseq's data-parallel wrappers only the legacy one runs without device ids.
    "distributed_training": {"ddp_backend": "legacy_ddp", "distributed_backend": "gloo"},
}


@dataclass(frozen=True)
class Place:
    """Which of a run's processes this is: all that fairseq must know of it, so that it guesses nothing."""

    rank: int
    world_size: int
    device: int
    """Which of the GPUs that the process sees is its own."""
    init_method: str
    """`tcp://host:port` of rank 0."""

    def told(self, project: dict[str, Any]) -> dict[str, Any]:
        """The project, its section distributed_training filled in."""
        options: dict[str, Any] = {"distributed_world_size": self.world_size}
        if self.world_size > 1:
            options |= {
                "distributed_rank": self.rank,
                "distributed_init_method": self.init_method,
                "distributed_no_spawn": True,
                "device_id": self.device,
            }
        return project | {"distributed_training": dict(project.get("distributed_training") or {}) | options}


def train(project: dict[str, Any]) -> None:
    """Run fairseq's trainer on a composed project, in as many processes as it says or as there are GPUs."""
    config = fairseq_config(project)
    processes = config.distributed_training.distributed_world_size
    if config.common.cpu and processes > 1:
        init_method = f"tcp://localhost:{free_port()}"
        multiprocessing.spawn(run_cpu_rank, args=(project, processes, init_method), nprocs=processes)  # type: ignore[attr-defined, no-untyped-call]
        return
    prepare_folder(project, config)
    distributed_utils.call_main(config, run_fairseq)


def train_rank(project: dict[str, Any], place: Place) -> bool:
    """One process of a run that was started elsewhere; False where it was asked to stop before its end."""
    config = fairseq_config(place.told(project))
    if place.rank == 0:
        prepare_folder(project, config)  # before the others, who wait for rank 0, look for a checkpoint
    with stops_at_step_boundaries():
        distributed_utils.call_main(config, run_fairseq)
    return not stop.agreed


def run_fairseq(config: DictConfig, **kwargs: Any) -> None:
    from fairseq_cli.train import main

    main(config, **kwargs)


def run_cpu_rank(rank: int, project: dict[str, Any], processes: int, init_method: str) -> None:
    """fairseq's own spawning counts GPUs, so without one every rank is told all there is to know."""
    train_rank(project, Place(rank, processes, device=0, init_method=init_method))


def prepare_folder(project: dict[str, Any], config: DictConfig) -> None:
    """Keeps the resolved project in the run's folder, and sees to what the run resumes from."""
    save_dir = Path(config.checkpoint.save_dir)
    save_dir.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(project, sort_keys=False)
    write_whole(save_dir / "project.yaml", lambda path: path.write_text(text))
    mend_last_checkpoint(save_dir)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        port: int = sock.getsockname()[1]
    return port


def fairseq_config(project: dict[str, Any]) -> DictConfig:
    """fairseq's whole configuration from a project; a key that nobody knows is a ValueError."""
    config = OmegaConf.structured(FairseqConfig())
    OmegaConf.set_struct(config, True)
    for group, section in sections(project, cpu=not cuda.is_available()).items():
        lists = {key for key, value in (config.get(group) or {}).items() if OmegaConf.is_list(value)}
        values = {
            key: [value] if key in lists and isinstance(value, int | float) else value for key, value in section.items()
        }
        try:
            config = OmegaConf.merge(config, {group: values})
        except OmegaConfBaseException as error:
            raise ValueError(f"section '{group}': {str(error).splitlines()[0]}") from error
    whole = DictConfig(OmegaConf.to_container(config, resolve=True, enum_to_str=True))
    OmegaConf.set_struct(whole, True)
    return whole


def sections(project: dict[str, Any], *, cpu: bool) -> dict[str, Any]:
    """fairseq's groups with what the project says of each, the sampler inside the task, and the CPU's necessities."""
    install()
    groups = {group: dict(section or {}) for group, section in project.items()}
    if "sampler" in groups:
        groups.setdefault("task", {})["sampler"] = groups.pop("sampler")
    groups.setdefault("common", {})["user_dir"] = str(USER_DIR)
    if cpu:
        for group, values in CPU.items():
            groups[group] = groups.get(group, {}) | values
    for group, section in groups.items():
        check_keys(group, section)
    return {
        group: {
            key: flow(value) if isinstance(value, dict) or (group in OURS and isinstance(value, list)) else value
            for key, value in section.items()
            if value is not None
        }
        for group, section in groups.items()
    }


def check_keys(group: str, section: dict[str, Any]) -> None:
    """ValueError for a group, a component or a key that does not exist; the message names the nearest one."""
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
        name = component_name(group, section, sorted(REGISTRIES[group]["registry"]))
        known = [field.name for field in fields(component_dataclass(group, name))]
    else:
        raise ValueError(unknown("section", group, [*plain_groups, *OURS, *REGISTRIES, "sampler"]))
    for key, value in section.items():
        if value is not None and key not in known:
            raise ValueError(unknown("key", f"{group}.{key}", known, guess=key))


def component_name(group: str, section: dict[str, Any], possible: list[str]) -> str:
    name = section.get("_name")
    if name not in possible:
        raise ValueError(unknown(group, str(name), possible))
    return str(name)


def component_dataclass(group: str, name: str) -> Any:
    ours = {
        "model": MODEL_DATACLASS_REGISTRY,
        "criterion": CRITERION_DATACLASS_REGISTRY,
        "task": TASK_DATACLASS_REGISTRY,
    }
    return ours[group][name] if group in ours else REGISTRIES[group]["dataclass_registry"][name]


def command_line(project: dict[str, Any], *, cpu: bool | None = None) -> str:
    """The `fairseq-train --user-dir` command that trains as `train(project)` does, here or on a machine with GPUs."""
    fairseq_config(project)
    groups = sections(project, cpu=not cuda.is_available() if cpu is None else cpu)
    if groups["common"].get("bf16"):
        raise ValueError("fairseq-train takes --bf16 for TPUs only: run this project with mmpt train, or without bf16")
    words = ["fairseq-train"]
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
    """`--name value` for what differs from fairseq's default; a switch has no value."""
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
