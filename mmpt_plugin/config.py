"""Projects: YAML files of `tasks/`, `projects/` and `slurm/`, composed by Hydra, with overrides."""

import importlib
import importlib.util
import logging
import re
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_plugin import moved, registry, user_dir
from mmpt_plugin.errors import unknown_name
from mmpt_plugin.interpolations import check_interpolations, without_environment
from mmpt_plugin.yaml_files import check_sections, read_yaml

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from omegaconf import DictConfig

PACKAGE = Path(__file__).parent


def root() -> Path:
    """The folder of `tasks/`, `projects/` and `slurm/`: the repository, or `yaml/` in the installed package."""
    checkout = PACKAGE.parent
    return checkout if (checkout / "projects" / "base.yaml").is_file() else PACKAGE / "yaml"


def roots(group: str = "projects") -> list[Path]:
    """The folders that have a group's folder: the current one, for tasks and projects of one's own, and `root()`."""
    own = [Path.cwd()] if group in ("tasks", "projects") else []
    return list(dict.fromkeys([*own, root()]))


def available(group: str) -> list[str]:
    """The names of a group's YAML files, sorted: `videoclip/pretrain` for projects/videoclip/pretrain.yaml.

    Of the current folder's `tasks` and `projects`, which may be about something else, three levels are listed, and
    only projects that say so.
    """
    package, own = root() / group, [folder / group for folder in roots(group) if folder != root()]
    names = {str(path.relative_to(package).with_suffix("")) for path in package.rglob("*.yaml")}
    for folder in own:
        paths = [path for depth in ("*", "*/*", "*/*/*") for path in folder.glob(f"{depth}.yaml")]
        names |= {
            str(path.relative_to(folder).with_suffix("")) for path in paths if group == "tasks" or is_project(path)
        }
    return sorted(names)


def is_project(path: Path) -> bool:
    """Whether a YAML file has the header that Hydra needs in a project."""
    return b"@package _global_" in path.read_bytes()


def find(group: str, name: str, *, kind: str, given: str | None = None) -> Path:
    """The YAML file of a name. ValueError, with the folders, if there is none, or if two files of this name differ."""
    paths = [path for folder in roots(group) if (path := folder / group / f"{name}.yaml").is_file()]
    if not paths:
        folders = " and ".join(str(folder / group) for folder in roots(group))
        raise ValueError(f"{unknown_name(kind, given or name, available(group), guess=name)}. Looked in {folders}")
    if len(paths) > 1 and paths[0].read_bytes() != paths[1].read_bytes():
        raise ValueError(f"{kind} '{name}' is both {paths[0]} and {paths[1]}, which differ: rename your own")
    return paths[0]


@without_environment()
def load_project(project: str, overrides: Sequence[str] = ()) -> "DictConfig":
    """Compose a project with Hydra, apply overrides and resolve interpolations.

    `project` is the path of a YAML file, which may be anywhere, or a name such as `videoclip/pretrain`, in `./projects`
    or in the repository. The override `task=NAME` or `task=some/path.yaml` selects another task, and
    `task.benchmark=NAME` a task to evaluate at each validation. `sampler._name=NAME` selects another component and
    leaves out the project's settings that it does not have. `common.user_dir`, by default that of the environment, is
    imported. Unknown names, missing values and invalid YAML are a ValueError.
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
        layers = [as_layer(overrides), *file_layers(folder, name)]
        with initialize_config_dir(str(folder), version_base="1.3"):
            config = compose(name, overrides=[*search_path(folder), *map(override_grammar, others)])
        benchmark = [compose_task(override.partition("=")[2]) for override in measured]
        if files:
            OmegaConf.set_struct(config, False)
            config.task = OmegaConf.create(read_yaml(Path(files[-1].partition("=")[2])))
            config.merge_with(OmegaConf.from_dotlist(into_file))
        if benchmark:  # keys of it that are overridden are there already
            given = OmegaConf.select(config, "task.benchmark") or {}
            OmegaConf.update(config, "task.benchmark", OmegaConf.merge(benchmark[-1], given), force_add=True)
        use_user_dir(config, project, overrides)
        check_sections(config, project)
        use_new_names(config, overrides)
        drop_other_keys(config, layers)
        check_interpolations(OmegaConf.to_container(config, resolve=False), f"project '{project}'")
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


def compose_task(name: str) -> "DictConfig":
    """A task's YAML, composed with those that it builds on."""
    from hydra import compose, initialize_config_dir

    folder = next(folder for folder in roots() if (folder / "tasks" / f"{name}.yaml").is_file())
    with initialize_config_dir(str(folder), version_base="1.3"):
        task: DictConfig = compose(f"tasks/{name}", overrides=search_path(folder)).tasks
        return task


def use_user_dir(config: "DictConfig", project: str, overrides: Sequence[str]) -> None:
    """Import the user directory, and record its absolute path in a project that trains, for all ranks and restarts.

    ValueError for one that only the project's file names: code runs if the person who runs the command names it.
    """
    from omegaconf import OmegaConf, open_dict

    if given := OmegaConf.select(config, "common.user_dir"):
        place = Path(str(given)).expanduser().resolve()
        if "common.user_dir" not in overridden(overrides) and place != user_dir.current():
            raise ValueError(
                f"project '{project}' would run the code in common.user_dir={given}: if you trust it, name it yourself "
                f"with --user-dir {given}"
            )
        user_dir.load(place)
    if "common" in config and (current := user_dir.current()):
        with open_dict(config):
            config.common.user_dir = str(current)


def with_recipe(project: str, overrides: Sequence[str]) -> str:
    """The project's recipe for its task, if there is one.

    `videoclip/finetune` with task=youcook2 becomes projects/videoclip/finetune/youcook2.yaml.
    """
    tasks = [override.partition("=")[2] for override in overrides if override.startswith("task=")]
    name = f"{project.removesuffix('.yaml').removeprefix('projects/')}/{tasks[-1]}" if tasks else ""
    return name if any((folder / "projects" / f"{name}.yaml").is_file() for folder in roots()) else project


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


Layer = Mapping[str, Mapping[str, Any]]
"""Section -> key -> value, as one file or the command line sets them."""


def drop_other_keys(config: "DictConfig", layers: Sequence[Layer]) -> None:
    """Delete, in place, the settings that another `_name` makes meaningless; a log line names them.

    `sampler._name=uniform` keeps `sampler.cluster_size` of the project, and drops `sampler.num_neighbors`. `layers`
    begin with what takes precedence. Keys that are set together with the name, or over it, stay, so that a wrong one is
    an error.
    """
    from omegaconf import OmegaConf, open_dict

    for section in (*registry.SECTIONS, *FAIRSEQ_SECTIONS):
        values, name = config.get(section), OmegaConf.select(config, f"{section}._name")
        naming = next((i for i, layer in enumerate(layers) if "_name" in layer.get(section, {})), None)
        if naming is None or not OmegaConf.is_dict(values):
            continue
        chosen = {key for layer in layers[: naming + 1] for key in layer.get(section, {})}
        inherited = [key for key in values if key not in chosen]
        known = component_keys(section, name) if inherited else None
        dropped = [] if known is None else [str(key) for key in inherited if key not in known]
        with open_dict(config):
            for key in dropped:
                del config[section][key]
        if dropped:
            names = ", ".join(f"{section}.{key}" for key in dropped)
            logger.info("%s._name=%s does not use the project's %s", section, name, names)


FAIRSEQ_SECTIONS = ("optimizer", "lr_scheduler")  # components of fairseq


def component_keys(section: str, name: str) -> set[str] | None:
    """The keys of the component that a section names; None if it is unknown."""
    if section in FAIRSEQ_SECTIONS:
        if importlib.util.find_spec("fairseq") is None:
            return None
        options: Any = importlib.import_module("mmpt_plugin.fairseq_bridge.options")  # fairseq's only home
        keys: set[str] | None = options.component_keys(section, name)
        return keys
    kind = registry.SECTIONS[section]
    if name not in kind:
        return None
    component = kind[name].config
    return {"_name", *(field.name for field in fields(component)), *getattr(component, "RENAMED", {})}


def as_layer(overrides: Sequence[str]) -> Layer:
    """The overrides `section.key=value`, by section."""
    layer: dict[str, dict[str, Any]] = {}
    for key in overridden(overrides):
        section, _, name = key.partition(".")
        layer.setdefault(section, {})[name.partition(".")[0]] = None
    return layer


def file_layers(folder: Path, name: str, above: tuple[str, ...] = ()) -> list[Layer]:
    """The YAML files that a project consists of, each as written; a file comes before those that it builds on.

    `above` are the files that build on this one. Hydra reports a file that builds on itself.
    """
    places = dict.fromkeys([folder, *roots()])
    path = next((path for place in places if (path := place / f"{name}.yaml").is_file()), None)
    if path is None or name in above:
        return []
    written = read_yaml(path) or {}
    if not isinstance(written, dict) or not isinstance(written.get("defaults", []), list):
        raise ValueError(f"{path}: expected sections, and a list under 'defaults'")
    bases = [str(entry) for entry in written.get("defaults", []) if "@_global_" in str(entry)]
    layer = {section: values for section, values in written.items() if isinstance(values, Mapping)}
    return [
        layer,
        *(each for base in reversed(bases) for each in file_layers(folder, base_name(base, name), (*above, name))),
    ]


def base_name(entry: str, name: str) -> str:
    """The file of an entry of a `defaults` list, such as `/projects/base@_global_`, in the file `name`."""
    base = entry.partition("@")[0]
    return base[1:] if base.startswith("/") else str(Path(name).parent / base)


def is_task_file(override: str) -> bool:
    """Whether an override is `task=some/path.yaml`, with an existing file."""
    key, _, value = override.partition("=")
    return key == "task" and value.endswith((".yaml", ".yml")) and Path(value).is_file()


def is_benchmark(override: str) -> bool:
    """Whether an override is `task.benchmark=NAME`; ValueError for an unknown name."""
    key, _, value = override.partition("=")
    if key != "task.benchmark" or value.startswith("{") or value == "null":
        return False
    find("tasks", value, kind="task YAML")
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
    path = find("projects", name, kind="project", given=project)
    return next(folder for folder in roots() if folder / "projects" in path.parents), f"projects/{name}"


def search_path(folder: Path) -> list[str]:
    """The override that lets a project in a folder use the YAML files of `roots()`."""
    others = ",".join(quoted(f"file://{other}") for other in roots() if other != folder)
    return [f"hydra.searchpath=[{others}]"] if others else []


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
        find("tasks", value, kind="task YAML")
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
