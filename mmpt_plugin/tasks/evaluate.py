"""A checkpoint measured on a project's task, or on all of its benchmarks, beside controls."""

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from mmpt_plugin import registry
from mmpt_plugin.datasets.corpus import DataNotThere
from mmpt_plugin.models import Embedder, load_model

SECTIONS = {"task", "checkpoint", "setting", "benchmarks"}


@dataclass(frozen=True)
class Models:
    """A checkpoint's model, and the same with its random weights of before any training."""

    checkpoint: dict[str, str]
    trained: Embedder
    untrained: Embedder


def evaluate(project: Mapping[str, Any]) -> dict[str, Any]:
    """`{"task", "checkpoint", "metrics", "chance", "untrained", "data", ...}`; no fairseq needed.

    `paper` stands beside them where the task's YAML has numbers for the project's `setting`. A CUDA device is used
    where there is one.
    """
    task = build_task(project)
    return measure(task, project, load_models(Path(project["checkpoint"])))


def evaluate_all(projects: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """One checkpoint on many benchmarks: `{"checkpoint", "benchmarks": {name: result}, "not_there": {name: ...}}`.

    A benchmark whose files are not on this machine is named with what is missing and where to get it. One whose
    files are wrong is an error.
    """
    first = next(iter(projects.values()))
    check_sections(first)
    models = load_models(Path(first["checkpoint"]))
    results, not_there = {}, {}
    for name, project in projects.items():
        try:
            task = build_task(project)
        except DataNotThere as error:
            not_there[name] = {"missing": str(error), "source": project["task"].get("source", "")}
        else:
            results[name] = {"benchmark": name, **measure(task, project, models)}
    return {"checkpoint": models.checkpoint, "benchmarks": results, "not_there": not_there}


def check_sections(project: Mapping[str, Any]) -> None:
    if unknown := set(project) - SECTIONS:
        raise ValueError(f"an evaluation has no section {sorted(unknown)}. Possible: {sorted(SECTIONS)}")


def build_task(project: Mapping[str, Any]) -> Any:
    check_sections(project)
    task = registry.tasks.build(project["task"])
    if not hasattr(task, "evaluate"):
        raise ValueError(f"task '{project['task']['_name']}' is for training: it has nothing to evaluate")
    return task


def load_models(checkpoint: Path) -> Models:
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    trained = load_model(checkpoint).to(device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = type(trained)(trained.config).eval().to(device)
    return Models({"path": str(checkpoint), "sha256": fingerprint(checkpoint)}, trained, untrained)


def measure(task: Any, project: Mapping[str, Any], models: Models) -> dict[str, Any]:
    result: dict[str, Any] = task.evaluate(models.trained)
    published = project["task"].get("paper", {}).get(project.get("setting"))
    return {
        "task": project["task"]["_name"],
        "checkpoint": models.checkpoint,
        **result,
        **({"paper": published} if published else {}),
        "untrained": task.evaluate(models.untrained)["metrics"],
    }


def fingerprint(path: Path) -> str:
    """sha256 of a checkpoint file, or of the weights in a model's folder."""
    with (path / "model.safetensors" if path.is_dir() else path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
