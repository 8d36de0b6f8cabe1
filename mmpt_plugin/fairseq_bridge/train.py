"""A project run by fairseq's own trainer, and the `fairseq-train` command that does the same."""

import shlex
import socket
from dataclasses import MISSING, fields, is_dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import torch
import yaml
from fairseq.criterions import CRITERION_DATACLASS_REGISTRY
from fairseq.dataclass.configs import FairseqConfig
from fairseq.distributed import utils as distributed_utils
from fairseq.models import MODEL_DATACLASS_REGISTRY
from fairseq.registry import REGISTRIES
from fairseq.tasks import TASK_DATACLASS_REGISTRY
from omegaconf import DictConfig, OmegaConf, open_dict
from omegaconf.errors import OmegaConfBaseException

from mmpt_plugin import registry
from mmpt_plugin.checkpoint import write_whole
from mmpt_plugin.fairseq_bridge import install
from mmpt_plugin.fairseq_bridge.dataclass import flow
from mmpt_plugin.registry import unknown

USER_DIR = Path(__file__).parents[1]
OURS = {"model": registry.models, "criterion": registry.criterions, "task": registry.tasks}
CPU = {
    "common": {"cpu": True},
    # Of fairseq's data-parallel wrappers only the legacy one runs without device ids.
    "distributed_training": {"ddp_backend": "legacy_ddp", "distributed_backend": "gloo"},
}


def train(project: dict[str, Any]) -> None:
    """Run fairseq's trainer on a composed project; the resolved project is kept in the run's folder."""
    config = fairseq_config(project)
    save_dir = Path(config.checkpoint.save_dir)
    save_dir.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(project, sort_keys=False)
    write_whole(save_dir / "project.yaml", lambda path: path.write_text(text))
    if not config.common.cpu:
        distributed_utils.call_main(config, run_fairseq)
        return
    processes = config.distributed_training.distributed_world_size
    if processes == 1:
        run_fairseq(config)
    else:
        torch.multiprocessing.spawn(run_cpu_rank, args=(config, free_port()), nprocs=processes)


def run_fairseq(config: DictConfig, **kwargs: Any) -> None:
    from fairseq_cli.train import main

    main(config, **kwargs)


def run_cpu_rank(rank: int, config: DictConfig, port: int) -> None:
    """fairseq's own spawning counts GPUs, so without one every rank is told all there is to know."""
    install()
    with open_dict(config):
        config.distributed_training.distributed_init_method = f"tcp://localhost:{port}"
        config.distributed_training.distributed_rank = rank
        config.distributed_training.distributed_no_spawn = True
        config.distributed_training.device_id = 0
    distributed_utils.call_main(config, run_fairseq)


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("localhost", 0))
        port: int = sock.getsockname()[1]
    return port


def fairseq_config(project: dict[str, Any]) -> DictConfig:
    """fairseq's whole configuration from a project; a key that nobody knows is a ValueError."""
    install()
    values = {**project, "task": dict(project.get("task") or {})}
    if "sampler" in values:
        values["task"]["sampler"] = values.pop("sampler")
    values = {group: component(group, section) for group, section in values.items()}
    config = OmegaConf.structured(FairseqConfig())
    OmegaConf.set_struct(config, True)
    groups = [field.name for field in fields(FairseqConfig)]
    for group, section in values.items():
        if group not in groups:
            raise ValueError(unknown("section", group, [*groups, "sampler"]))
        try:
            config = OmegaConf.merge(config, {group: section})
        except OmegaConfBaseException as error:
            keys = list(config[group]) if OmegaConf.is_config(config[group]) else []
            bad = [key for key in section if key not in keys] if isinstance(section, dict) else []
            reason = unknown("key", f"{group}.{bad[0]}", keys, guess=bad[0]) if bad else str(error).splitlines()[0]
            raise ValueError(reason) from error
    if not torch.cuda.is_available():
        config = OmegaConf.merge(config, CPU)
    config.common.user_dir = str(USER_DIR)
    config = OmegaConf.create(OmegaConf.to_container(config, resolve=True, enum_to_str=True))
    OmegaConf.set_struct(config, True)
    return config


def component(group: str, section: Any) -> Any:
    """A section that names a component, checked against the component's own config; others as they are."""
    if group in OURS:
        if not isinstance(section, dict) or "_name" not in section:
            raise ValueError(f"section '{group}' has no _name. Possible: {sorted(OURS[group])}")
        OURS[group][section["_name"]].parse(section)
        return {key: flow(value) if isinstance(value, dict) else value for key, value in section.items()}
    if group in REGISTRIES and isinstance(section, dict):
        dataclass = REGISTRIES[group]["dataclass_registry"].get(section.get("_name"))
        if dataclass is None:
            raise ValueError(unknown(group, str(section.get("_name")), list(REGISTRIES[group]["registry"])))
        known = [field.name for field in fields(dataclass)]
        for key in section:
            if key not in known:
                raise ValueError(unknown("key", f"{group}.{key}", known, guess=key))
    return section


def command_line(project: dict[str, Any]) -> str:
    """The `fairseq-train --user-dir` command that trains as `train(project)` does."""
    config = fairseq_config(project)
    words = ["fairseq-train", "--user-dir", str(USER_DIR)]
    if config.common.bf16:
        raise ValueError("fairseq-train takes --bf16 for TPUs only: run this project with mmpt train, or without bf16")
    for field in fields(FairseqConfig):
        section = config.get(field.name)
        if section is None:
            continue
        if is_dataclass(field.type):
            words += flags(section, field.type)
        elif isinstance(section, DictConfig):
            option = "arch" if field.name == "model" else field.name.replace("_", "-")
            words += [
                f"--{option}",
                section._name,
                *flags(section, component_dataclass(field.name, section._name)),
            ]
    return shlex.join(words)


def component_dataclass(group: str, name: str) -> Any:
    ours = {
        "model": MODEL_DATACLASS_REGISTRY,
        "criterion": CRITERION_DATACLASS_REGISTRY,
        "task": TASK_DATACLASS_REGISTRY,
    }
    return ours[group][name] if group in ours else REGISTRIES[group]["dataclass_registry"][name]


def flags(section: DictConfig, dataclass: Any) -> list[str]:
    """`--name value` for what differs from the defaults; a switch has no value."""
    words = []
    for field in fields(dataclass):
        default = field.default_factory() if field.default_factory is not MISSING else field.default
        default = default.value if isinstance(default, Enum) else default
        value = section.get(field.name)
        if field.name in ("_name", "user_dir") or value is None or value == default:
            continue
        words.append(f"--{field.name.replace('_', '-')}")
        if not isinstance(value, bool):
            words.append(str(value))
    return words
