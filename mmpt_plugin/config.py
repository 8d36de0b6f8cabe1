"""Projects: YAML composed by Hydra from `tasks/`, `projects/` and `slurm/`, with overrides."""

from collections.abc import Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

import yaml
from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from mmpt_plugin import registry
from mmpt_plugin.registry import unknown

PACKAGE = Path(__file__).parent


def root() -> Path:
    """The folder of `tasks/`, `projects/` and `slurm/`: the repository's, or their copies in the installed package."""
    checkout = PACKAGE.parent
    return checkout if (checkout / "projects" / "base.yaml").is_file() else PACKAGE / "yaml"


def available(group: str) -> list[str]:
    """The names in one of the YAML folders, `videoclip/pretrain` for projects/videoclip/pretrain.yaml."""
    folder = root() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def load_project(project: str, overrides: Sequence[str] = ()) -> DictConfig:
    """A project's YAML with everything it names, overrides applied and interpolations resolved.

    `project` is a file's path (of a user's own project too) or a name such as `videoclip/pretrain`;
    `task=NAME` or `task=some/path.yaml` among the overrides picks another task.
    """
    folder, name = locate(project)
    files = [override for override in overrides if is_task_file(override)]
    into_file = [override for override in overrides if files and override.startswith("task.")]
    others = [override for override in overrides if override not in files + into_file]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = compose(name, overrides=[*search_path(folder), *map(override_grammar, others)])
        if files:
            OmegaConf.set_struct(config, False)
            config.task = OmegaConf.load(files[-1].partition("=")[2])
            config.merge_with(OmegaConf.from_dotlist(into_file))
        OmegaConf.resolve(config)
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise ValueError(f"project '{project}' needs {' and '.join(f'{key}=VALUE' for key in missing)}")
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        raise ValueError(one_line(project, error)) from error
    return config


def fine_tuned(project: dict[str, Any]) -> dict[str, Any]:
    """A benchmark as what is trained: on the data of its `finetune` section, measured by it on the valid split.

    Each split, and the data set of `finetune.benchmark`, inherits from `task.dataset` what it does not say itself, so
    `task.dataset.features=...` reaches all. A key that a split sets is its own: another value for it is
    `task.finetune.dataset.splits.train.annotations=...`. A null unsets an inherited key.
    """
    task = dict(project.get("task") or {})
    recipe = task.pop("finetune", None)
    if not recipe:
        return project
    own = (recipe.get("dataset") or {}).get("splits")
    if not own:
        raise ValueError("task.finetune.dataset.splits is missing, {train: {...}, valid: {...}}")
    tested = task.get("dataset") or {}
    splits = {split: inherited(section or {}, tested) for split, section in own.items()}
    measured = recipe.get("benchmark") or (task | {"dataset": splits["valid"]} if "valid" in splits else {})
    if measured:
        measured = measured | {"dataset": inherited(measured.get("dataset") or {}, tested)}
    dataset = recipe["dataset"] | {"splits": splits}
    return project | {"task": {"_name": "finetuning", "dataset": dataset, "benchmark": measured}}


def inherited(section: dict[str, Any], tested: dict[str, Any]) -> dict[str, Any]:
    """A data set with what it does not say itself: all of `tested`, or of another corpus the keys that both share."""
    name, other = section.get("_name"), tested.get("_name")
    if None in (name, other) or name == other:
        return tested | section
    shared = shared_keys(registry.datasets[str(name)].config, registry.datasets[str(other)].config)
    return {key: value for key, value in tested.items() if key in shared} | section


def shared_keys(one: type, other: type) -> set[str]:
    """The fields of the dataclasses that both derive from; not `annotations`, which each corpus has of its own."""
    bases = [base for base in one.__mro__ if is_dataclass(base) and issubclass(other, base)]
    return {field.name for base in bases for field in fields(base)} - {"annotations"}


def is_task_file(override: str) -> bool:
    """`task=some/path.yaml`, a file of the user's own."""
    key, _, value = override.partition("=")
    return key == "task" and value.endswith((".yaml", ".yml")) and Path(value).is_file()


def load_benchmarks(project: str, overrides: Sequence[str], loaded: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """For each of a project's `benchmarks` the project with that task."""
    names = loaded.get("benchmarks") or []
    if not names:
        raise ValueError(f"project '{project}' has no task: task=NAME picks one. Possible: {available('tasks')}")
    return {name: plain(load_project(project, [*overrides, f"task={name}"])) for name in names}


def locate(project: str) -> tuple[Path, str]:
    """The folder to compose in, and the project's name in it."""
    path = Path(project)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        path = path.resolve()
        if root() in path.parents:
            return root(), str(path.relative_to(root()).with_suffix(""))
        return path.parent, path.stem
    name = project.removesuffix(".yaml").removeprefix("projects/")
    if name in available("projects"):
        return root(), f"projects/{name}"
    raise ValueError(unknown("project", project, available("projects"), guess=name))


def search_path(folder: Path) -> list[str]:
    """A user's own project may still name what is in the package's folders."""
    return [] if folder == root() else [f"hydra.searchpath=[file://{root()}]"]


def override_grammar(override: str) -> str:
    """Our overrides in Hydra's grammar.

    `task=msrvtt` picks the file tasks/msrvtt.yaml. Any other key may be new to the YAML, which knows neither
    fairseq's options nor a component's: whether it exists is checked against those, after composing.
    """
    key, equals, value = override.partition("=")
    if not equals:
        raise ValueError(f"override '{override}' is no key=value")
    if key == "task":
        if value not in available("tasks"):
            raise ValueError(unknown("task YAML", value, available("tasks")))
        return f"tasks@task={value}"
    return override if key[0] in "+~" or "@" in key else f"++{override}"


def one_line(project: str, error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"project '{project}': {' '.join(lines[:2])}"


def plain(config: Any) -> Any:
    """Dicts, lists and values instead of OmegaConf's containers."""
    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config
