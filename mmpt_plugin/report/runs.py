"""Read the folder of a run: its settings, its training log, and its metrics if it has been evaluated."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_plugin.config import flat
from mmpt_plugin.errors import require, shortened
from mmpt_plugin.files import read_json
from mmpt_plugin.report.curve import Series, read_log
from mmpt_plugin.report.table import CONTROLS
from mmpt_plugin.yaml_files import read_yaml

PROJECT, LOG, METRICS = "project.yaml", "train.log", "metrics.json"
OWN_FOLDER = "checkpoint.save_dir"
NUMBER = (int, float)
EXAMPLE: dict[str, Any] = {"text": str, "rank": int, "found": list, "right": dict}
CLIP: dict[str, Any] = {"video_id": str, "caption": str, "start": NUMBER, "end": NUMBER, "score": NUMBER}


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
    for one in results:
        check_result(one, str(path))
    return results


def check_result(result: dict[str, Any], where: str) -> None:
    """ValueError, with the location in a file, for a value that tables and pages can't show."""
    require(result, "task", str, where)
    require(result, "metrics", dict, where)
    oracles = result.get("oracles", {})
    tables = {name: result[name] for name in ("metrics", *CONTROLS) if name in result}
    for name, values in {**tables, **(oracles if isinstance(oracles, dict) else {"oracles": oracles})}.items():
        if not isinstance(values, dict):
            raise ValueError(f"{where}: {name} must be an object of numbers, got {shortened(values)}")
        for metric, value in values.items():
            if value is not None:
                require(values, metric, NUMBER, f"{where}: {name}")
    examples = result.get("examples", [])
    if not isinstance(examples, list) or not all(isinstance(example, dict) for example in examples):
        raise ValueError(f"{where}: examples must be a list of objects, got {shortened(examples)}")
    for number, example in enumerate(examples):
        if "found" in example:
            check_example(result, example, f"{where}, example {number}")


def check_example(result: dict[str, Any], example: dict[str, Any], where: str) -> None:
    """ValueError, with the location in a file, for a retrieved example that a page can't show."""
    for key, kind in EXAMPLE.items():
        require(example, key, kind, where)
    for count in ("num_queries", "num_clips"):
        require(result, count, int, where)
    require({"missing_videos": 0} | result, "missing_videos", int, where)
    require({"meaning_rank": 0} | example, "meaning_rank", int, where)
    for clip in (example["right"], *example["found"]):
        for key, kind in CLIP.items():
            require(clip, key, kind, where)
        meaning = require({"meaning": {}} | clip, "meaning", dict, where)
        if not all(isinstance(text, str) for text in meaning.values()):
            raise ValueError(f"{where}: meaning must be an object of texts, got {shortened(meaning)}")
    if "meaning_rank" in example and "meaning" not in example["right"]:
        raise ValueError(f"{where}: the right clip has no meaning")


def read_metrics(path: Path) -> dict[str, Any]:
    """The content of a metrics.json; ValueError if it is not a JSON object."""
    content = read_json(path)
    if not isinstance(content, dict):
        raise ValueError(f"{path} is not a result of mmpt evaluate --json")
    return content
