"""Profiles: a YAML file with the resources of a job, in `slurm/` or your own file."""

import math
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpt_plugin import config
from mmpt_plugin.errors import first_line, unknown_name
from mmpt_plugin.interpolations import check_interpolations, without_environment
from mmpt_plugin.launch.options import check_options, gpus_of
from mmpt_plugin.registry import parse_config
from mmpt_plugin.yaml_files import read_yaml

# sbatch's own environment variables, used for keys that a profile does not set.
FROM_ENVIRONMENT = {"partition": "SBATCH_PARTITION", "account": "SBATCH_ACCOUNT", "qos": "SBATCH_QOS"}


@dataclass(kw_only=True)
class Profile:
    """The resources of one job; every job of an array gets the same."""

    executor: str = "slurm"
    """slurm, or local for processes on this machine with the same signals and time limits."""
    nodes: int = 1
    """Nodes of the job; 1 with the local executor."""
    gpus_per_node: int = 0
    """GPUs on each node; 0 runs on CPUs, or means as many as `gres` asks for."""
    gpu_type: str | None = None
    """Type of the GPUs: `a100` asks for --gpus-per-node=a100:4."""
    gres: str | None = None
    """Asks for GPUs with --gres, such as `gpu:a100:4`; `none` asks with no option, where partitions come with GPUs."""
    tasks_per_node: int = 0
    """Processes on each node; 0 means one per GPU, or one without GPUs."""
    cpus_per_task: int = 1
    """CPU cores of each process; data-loader workers share them."""
    mem_gb: int | float | str = 0
    """Memory of each node in gigabytes; 0 means all of it, `none` leaves out --mem."""
    hours: float = 1.0
    """Time limit in hours. A training job that reaches it is requeued, and resumes from its checkpoint."""
    signal_seconds: int = 300
    """Seconds before the time limit at which the job is signalled. One step, the embedding of an epoch and a checkpoint
    must fit in."""
    partition: str | None = None
    """SLURM partition; null takes $SBATCH_PARTITION, or the default of the cluster."""
    account: str | None = None
    """SLURM account to charge; null takes $SBATCH_ACCOUNT, or the default of the cluster."""
    qos: str | None = None
    """SLURM quality of service; null takes $SBATCH_QOS, or the default of the cluster."""
    constraint: str | None = None
    """SLURM features that nodes must have, such as `volta32gb` or `a100|h100`."""
    exclude: str | None = None
    """Nodes to avoid, such as `node[07,12]`."""
    compute_capability: str | None = None
    """Compute capability of the GPUs, "7.0" for a V100. A project that cannot run on them is refused at launch."""
    array_parallelism: int = 64
    """Jobs of a sweep or an array that run at the same time; `--parallel N` sets it."""
    setup: list[str] = field(default_factory=list)
    """Shell lines that run before the job starts: modules, conda, environment variables."""
    python: str | None = None
    """The command for Python on the nodes, such as `apptainer exec --nv image.sif python`; null means this Python."""
    extra: dict[str, Any] = field(default_factory=dict)
    """Any other options of sbatch: `{reservation: icml, exclusive: true, mail-type: "END,FAIL"}`."""
    extra_srun: dict[str, Any] = field(default_factory=dict)
    """Any other options of srun, which starts the processes: `{container-image: image.sqsh, cpu-bind: none}`."""

    def __post_init__(self) -> None:
        if self.executor not in ("slurm", "local"):
            raise ValueError(f"slurm.executor must be slurm or local, got '{self.executor}'")
        for name, least in (
            ("nodes", 1), ("gpus_per_node", 0), ("tasks_per_node", 0), ("cpus_per_task", 1),
            ("signal_seconds", 1), ("array_parallelism", 1),
        ):  # fmt: skip
            if getattr(self, name) < least:
                raise ValueError(f"slurm.{name} must be at least {least}, got {getattr(self, name)}")
        if self.executor == "local" and self.nodes > 1:
            raise ValueError(f"slurm.nodes must be 1 if slurm.executor is local, got {self.nodes}")
        check_options(self)
        self.gpus_per_node = self.gpus_per_node or gpus_of(self.gres)
        if gpus_of(self.gres) not in (0, self.gpus_per_node):
            raise ValueError(
                f"slurm.gres is '{self.gres}' and slurm.gpus_per_node {self.gpus_per_node}: set one of them"
            )
        if self.gpus_per_node and self.tasks_per_node not in (0, self.gpus_per_node):
            raise ValueError(
                f"slurm.tasks_per_node is {self.tasks_per_node} and slurm.gpus_per_node {self.gpus_per_node}: "
                "a job has one task per GPU"
            )
        if not 0 < self.hours <= 24 * 365:
            raise ValueError(f"slurm.hours must be more than 0 and at most a year, got {self.hours}")
        if self.signal_seconds >= 60 * self.minutes:
            raise ValueError(
                f"slurm.signal_seconds must be less than the time limit of {60 * self.minutes} s, "
                f"got {self.signal_seconds}"
            )
        if self.compute_capability is not None and not re.fullmatch(r"\d+\.\d", self.compute_capability):
            raise ValueError(f'slurm.compute_capability must look like "7.0", got {self.compute_capability!r}')

    @property
    def minutes(self) -> int:
        """The time limit in whole minutes, rounded up."""
        return math.ceil(60 * self.hours - 1e-6)

    @property
    def tasks(self) -> int:
        """Processes on each node."""
        return self.tasks_per_node or self.gpus_per_node or 1


@without_environment()
def load_profile(name: str, overrides: Sequence[str] = ()) -> Profile:
    """Load a profile from a path or a name such as `v100x8`; overrides have the form `slurm.nodes=2`."""
    path = find(name)
    written = read_yaml(path)
    if not isinstance(written, dict):
        return profile(written, where=str(path))
    try:
        given = OmegaConf.from_dotlist([word.partition(".")[2] for word in overrides])
        merged = OmegaConf.merge(OmegaConf.create(written), given)
        check_interpolations(OmegaConf.to_container(merged), f"profile {path}")
        values = OmegaConf.to_container(merged, resolve=True)
    except (OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(f"profile {path}: {first_line(error)}") from error
    return profile(values, where=str(path))


def profile(values: Any, *, where: str) -> Profile:
    """Build and check a profile from YAML values, which take precedence over environment variables.

    ValueError, naming the location `where`, for unknown keys or invalid values.
    """
    if not isinstance(values, dict):
        raise ValueError(f"profile {where}: expected keys and values. Possible: {[f.name for f in fields(Profile)]}")
    if isinstance(values.get("setup"), str):  # a block of lines
        values = values | {"setup": [values["setup"]]}
    from_environment = {key: os.environ[name] for key, name in FROM_ENVIRONMENT.items() if os.environ.get(name)}
    try:
        made: Profile = parse_config(Profile, from_environment | values, "slurm")
    except ValueError as error:
        hint = ". Any other option of sbatch belongs in slurm.extra" if str(error).startswith("no key") else ""
        raise ValueError(f"profile {where}: {error}{hint}") from error
    return made


def find(name: str) -> Path:
    """The file of a profile, given as a path or as a name in `slurm/`; ValueError if there is none."""
    path = Path(name)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        return path
    short = name.removesuffix(".yaml").removeprefix("slurm/")
    if short in config.available("slurm"):
        return config.root() / "slurm" / f"{short}.yaml"
    raise ValueError(unknown_name("profile", name, config.available("slurm"), guess=short))
