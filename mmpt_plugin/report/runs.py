"""Read the folder of a run: its settings, its training log, and its metrics if it has been evaluated."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_plugin.config import flat
from mmpt_plugin.files import read_json
from mmpt_plugin.report.curve import Series, read_log
from mmpt_plugin.yaml_files import read_yaml

PROJECT, LOG, METRICS = "project.yaml", "train.log", "metrics.json"
OWN_FOLDER = "checkpoint.save_dir"


@dataclass(frozen=True)
class Run:
    """What a run's folder has."""

    name: str
    """The folder's name, or its path if another run has the same name."""
    settings: dict[str, Any]
    """The values of project.yaml by key, `{"optimization.lr": [0.001], ...}`. A null is as good as no key."""
    series: Series
    """The training curves; see `read_log`."""
    results: list[dict[str, Any]]
    """The results of metrics.json; empty if there is none."""


def read_runs(folders: Sequence[Path]) -> list[Run]:
    """The runs of these folders; ValueError for one that is given twice, or is not a run, or has no log."""
    places = [check_run(folder).resolve() for folder in folders]
    if repeated := [str(folder) for number, folder in enumerate(folders) if places[number] in places[:number]]:
        raise ValueError(f"run {repeated[0]} is given twice")
    names = [place.name for place in places]
    return [
        Run(
            name if names.count(name) == 1 else str(folder),
            read_settings(folder / PROJECT),
            read_log(find_log(folder)),
            results_of(folder / METRICS),
        )
        for name, folder in zip(names, folders, strict=True)
    ]


def check_run(folder: Path) -> Path:
    """The folder; ValueError if it is not the folder of a run."""
    if not folder.exists():
        raise ValueError(f"no run {folder}")
    if not (folder / PROJECT).is_file():
        raise ValueError(f"{folder} is not the folder of a run, in which mmpt train writes {PROJECT}")
    return folder


def find_log(folder: Path) -> Path:
    """The log of a run; ValueError if it has none."""
    log = folder / LOG
    if not log.is_file():
        raise ValueError(f"no {log}: train with common.log_format=json common.log_file={log}")
    return log


def time_of_end(log: Path) -> str:
    """The last time at the beginning of a line of the log, `2026-01-31 12:34:56`; empty if there is none."""
    times = re.findall(r"^\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", log.read_text(encoding="utf-8", errors="replace"), re.M)
    return times[-1] if times else ""


def read_settings(path: Path) -> dict[str, Any]:
    """The settings of a project.yaml. Paths in the run's own folder are written as in a project, relative to it."""
    project = read_yaml(path)
    if not isinstance(project, dict):
        raise ValueError(f"{path} is not a project: it has no sections")
    settings = flat(project)
    own = settings.pop(OWN_FOLDER, None)
    for key, value in settings.items():
        if own and isinstance(value, str) and value.startswith(f"{own}/"):
            settings[key] = f"${{{OWN_FOLDER}}}{value.removeprefix(own)}"
    return settings


def results_of(path: Path) -> list[dict[str, Any]]:
    """The results in a file of `mmpt evaluate --json`, of one task or of all benchmarks; none without a file."""
    if not path.is_file():
        return []
    content = read_metrics(path)
    results = list(content["benchmarks"].values()) if isinstance(content.get("benchmarks"), dict) else [content]
    if not all(isinstance(one, dict) and isinstance(one.get("metrics"), dict) and "task" in one for one in results):
        raise ValueError(f"{path} is not a result of mmpt evaluate --json")
    return results


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of a metrics.json; ValueError if it is not a JSON object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a result of mmpt evaluate --json")
    return content
