"""Projects: YAML files of `tasks/`, `projects/` and `slurm/`, composed by Hydra, with overrides."""

import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_plugin import moved, registry
from mmpt_plugin.errors import unknown_name

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from omegaconf import DictConfig

PACKAGE = Path(__file__).parent


def root() -> Path:
    """The folder of `tasks/`, `projects/` and `slurm/`: the repository, or `yaml/` in the installed package."""
    checkout = PACKAGE.parent
    return checkout if (checkout / "projects" / "base.yaml").is_file() else PACKAGE / "yaml"


def available(group: str) -> list[str]:
    """The names of a group's YAML files, sorted: `videoclip/pretrain` for projects/videoclip/pretrain.yaml."""
    folder = root() / group
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in folder.rglob("*.yaml"))


def load_project(project: str, overrides: Sequence[str] = ()) -> "DictConfig":
    """Compose a project with Hydra, apply overrides and resolve interpolations.

    `project` is the path of a YAML file, which may be outside of the repository, or a name such as
    `videoclip/pretrain`. The override `task=NAME` or `task=some/path.yaml` selects another task, and
    `task.benchmark=NAME` a task to evaluate at each validation. `sampler._name=NAME` selects another component and
    leaves out the project's settings that it does not have. Unknown names, missing values and invalid YAML are a
    ValueError.
    """
    import yaml  # with Hydra 0.3 s, which `mmpt list` does not need
    from hydra import compose, initialize_config_dir
    from hydra.core.global_hydra import GlobalHydra
    from hydra.errors import HydraException
    from omegaconf import OmegaConf
    from omegaconf.errors import OmegaConfBaseException

    folder, name = locate(with_recipe(project, overrides))
    files = [override for override in overrides if is_task_file(override)]
    into_file = [override for override in overrides if files and override.startswith("task.")]
    measured = [override for override in overrides if is_benchmark(override)]
    others = [override for override in overrides if override not in files + into_file + measured]
    GlobalHydra.instance().clear()
    try:
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = compose(name, overrides=[*search_path(folder), *map(override_grammar, others)])
            benchmark = [
                compose(f"tasks/{override.partition('=')[2]}", overrides=search_path(folder)).tasks
                for override in measured
            ]
        if files:
            OmegaConf.set_struct(config, False)
            config.task = OmegaConf.load(files[-1].partition("=")[2])
            config.merge_with(OmegaConf.from_dotlist(into_file))
        if benchmark:  # keys of it that are overridden are there already
            given = OmegaConf.select(config, "task.benchmark") or {}
            OmegaConf.update(config, "task.benchmark", OmegaConf.merge(benchmark[-1], given), force_add=True)
        use_new_names(config, overrides)
        drop_other_keys(config, overrides)
        OmegaConf.resolve(config)
        if missing := sorted(OmegaConf.missing_keys(config)):
            raise ValueError(f"project '{project}' needs {' and '.join(f'{key}=VALUE' for key in missing)}")
    except (HydraException, OmegaConfBaseException, yaml.YAMLError) as error:
        if "You must specify 'tasks@task'" in str(error):
            own = f"{name.removeprefix('projects/')}/"
            recipes = [path.removeprefix(own) for path in available("projects") if path.startswith(own)]
            raise ValueError(f"project '{project}' needs task=NAME. Tasks with their own recipe: {recipes}") from error
        raise ValueError(one_line_error(project, error)) from error
    return config


def with_recipe(project: str, overrides: Sequence[str]) -> str:
    """The project's recipe for its task, if there is one.

    `videoclip/finetune` with task=youcook2 becomes projects/videoclip/finetune/youcook2.yaml.
    """
    tasks = [override.partition("=")[2] for override in overrides if override.startswith("task=")]
    name = f"{project.removesuffix('.yaml').removeprefix('projects/')}/{tasks[-1]}" if tasks else ""
    return name if name in available("projects") else project


# Keys of the `finetune` section of a task's YAML in version 0.1, and their current place in a project.
RECIPE_KEYS = {
    "videos_per_batch": "sampler.cluster_size",
    "epochs": "optimization.max_epoch",
    "criterion": "criterion",
    "model": "model._name",
    "num_centers": "model.num_centers",
}


def use_new_names(config: "DictConfig", overrides: Sequence[str]) -> None:
    """Move keys of version 0.1 to their new names, in place; an override of the new name takes precedence."""
    from omegaconf import OmegaConf, open_dict

    given = overridden(overrides)
    recipe = OmegaConf.select(config, "task.finetune") or {}
    with open_dict(config):
        if "setting" in config:
            logger.warning("setting is now protocol; the old name works for one version")
            setting = config.pop("setting")
            config.protocol = config.protocol if "protocol" in given else setting
        for old, new in RECIPE_KEYS.items():
            if old in recipe:
                logger.warning("task.finetune.%s is now %s; the old name works for one version", old, new)
                value = recipe.pop(old)
                if not any(key == new or key.startswith(f"{new}.") for key in given):
                    OmegaConf.update(config, new, value, merge=False)
        for section, kind in registry.SECTIONS.items():
            values = config.get(section)
            if not OmegaConf.is_dict(values):
                continue
            renamed = getattr(kind[values["_name"]].config, "RENAMED", {}) if values.get("_name") in kind else {}
            for old, new in renamed.items():
                if old in values and f"{section}.{new}" in given:
                    del values[old]


def overridden(overrides: Sequence[str]) -> set[str]:
    """The keys that overrides set."""
    return {override.partition("=")[0].lstrip("+") for override in overrides}


def drop_other_keys(config: "DictConfig", overrides: Sequence[str]) -> None:
    """Delete, in place, the settings that an overridden `_name` makes meaningless; a log line names them.

    `sampler._name=uniform` keeps `sampler.cluster_size` of the project, and drops `sampler.num_neighbors`. Keys that
    are overridden themselves stay, so that a wrong one is an error.
    """
    from omegaconf import OmegaConf, open_dict

    given = overridden(overrides)
    for section, kind in registry.SECTIONS.items():
        name = OmegaConf.select(config, f"{section}._name")
        if f"{section}._name" not in given or name not in kind:
            continue
        component = kind[name].config
        known = {"_name", *(field.name for field in fields(component)), *getattr(component, "RENAMED", {})}
        inherited = [key for key in config[section] if key not in known and f"{section}.{key}" not in given]
        with open_dict(config):
            for key in inherited:
                del config[section][key]
        if inherited:
            dropped = ", ".join(f"{section}.{key}" for key in inherited)
            logger.info("%s._name=%s does not use the project's %s", section, name, dropped)


def is_task_file(override: str) -> bool:
    """Whether an override is `task=some/path.yaml`, with an existing file."""
    key, _, value = override.partition("=")
    return key == "task" and value.endswith((".yaml", ".yml")) and Path(value).is_file()


def is_benchmark(override: str) -> bool:
    """Whether an override is `task.benchmark=NAME`; ValueError for an unknown name."""
    key, _, value = override.partition("=")
    if key != "task.benchmark" or value.startswith("{") or value == "null":
        return False
    if value not in available("tasks"):
        raise ValueError(unknown_name("task YAML", value, available("tasks")))
    return True


def with_log(project: dict[str, Any]) -> dict[str, Any]:
    """The project with a log file in its folder, in fairseq's JSON format, unless it sets a log file."""
    common = project.get("common") or {}
    if common.get("log_file"):
        return project
    log_file = str(Path(project["checkpoint"]["save_dir"]) / "train.log")
    return project | {"common": common | {"log_format": "json", "log_file": log_file}}


def load_benchmarks(project: str, overrides: Sequence[str], loaded: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Load a project once for each task in its list `benchmarks`; ValueError if the list is empty."""
    names = loaded.get("benchmarks") or []
    if not names:
        raise ValueError(f"project '{project}' has no task: add task=NAME. Possible: {available('tasks')}")
    return {name: plain(load_project(project, [*overrides, f"task={name}"])) for name in names}


def locate(project: str) -> tuple[Path, str]:
    """The root folder for Hydra, and the name of the project in it; ValueError for an unknown name."""
    path = Path(project)
    if path.suffix in (".yaml", ".yml") and path.is_file():
        path = path.resolve()
        if root() in path.parents:
            return root(), str(path.relative_to(root()).with_suffix(""))
        return path.parent, path.stem
    name = project.removesuffix(".yaml").removeprefix("projects/")
    if name in available("projects"):
        return root(), f"projects/{name}"
    raise ValueError(unknown_name("project", project, available("projects"), guess=name))


def search_path(folder: Path) -> list[str]:
    """The override that lets a project outside of the repository use the YAML files of `root()`."""
    return [] if folder == root() else [f"hydra.searchpath=[file://{root()}]"]


def override_grammar(override: str) -> str:
    """Convert an override to Hydra's grammar.

    `task=msrvtt` selects the file tasks/msrvtt.yaml. Any other key may be absent from the YAML, which does not list all
    options of fairseq and of components; keys are checked after composing. A leading `~/` is the home folder: shells
    do not expand it after `=`. A value that Hydra's grammar does not accept, such as a path with `é`, `=` or an
    apostrophe, is quoted.
    """
    key, equals, value = override.partition("=")
    if not equals:
        raise ValueError(f"override '{override}' is not of the form key=value")
    if key == "task":
        if value not in available("tasks"):
            raise ValueError(unknown_name("task YAML", value, available("tasks")))
        return f"tasks@task={value}"
    if key[:1] in ("+", "~") or "@" in key:
        return override
    if value.startswith("~/"):
        value = str(Path(value).expanduser())
    return f"++{key}={value if value.startswith(('[', '{')) or parses(value) else quoted(value)}"


def parses(value: str) -> bool:
    """Whether Hydra reads the text as one value; with a comma it may be several, for a sweep."""
    from hydra.core.override_parser.overrides_parser import OverridesParser
    from hydra.errors import HydraException

    try:
        return not OverridesParser.create().parse_override(f"key={value}").is_sweep_override()
    except HydraException:
        return False


def quoted(value: str) -> str:
    """The text as a quoted string of Hydra: quotes, and the backslashes before them and at the end, are escaped."""
    return '"' + re.sub(r'(\\*)("|$)', lambda found: found[1] * 2 + found[2].replace('"', r"\""), value) + '"'


def one_line_error(project: str, error: Exception) -> str:
    """An error message of Hydra, on one line."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return f"project '{project}': {' '.join(lines[:2])}"


def flat(section: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """`{"optimization.lr": [0.001], ...}`, without null values and empty sections."""
    settings: dict[str, Any] = {}
    for key, value in section.items():
        if isinstance(value, Mapping):
            settings |= flat(value, f"{prefix}{key}.")
        elif value is not None:
            settings[f"{prefix}{key}"] = value
    return settings


def plain(config: Any) -> Any:
    """Convert OmegaConf containers to dicts and lists, with interpolations resolved; other values are unchanged."""
    from omegaconf import OmegaConf

    return OmegaConf.to_container(config, resolve=True) if OmegaConf.is_config(config) else config


__getattr__ = moved.attributes(__name__)
