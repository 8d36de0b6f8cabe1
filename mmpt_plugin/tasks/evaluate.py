"""Evaluation of a checkpoint on a project's task, or on all of its benchmarks, with an untrained model as control."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mmpt_plugin import registry
from mmpt_plugin.corpora.readers import DataNotThere
from mmpt_plugin.files import file_sha256
from mmpt_plugin.hardware import compute_device
from mmpt_plugin.models import Embedder, load_model
from mmpt_plugin.protocols import BenchmarkTask

logger = logging.getLogger(__name__)

SECTIONS = {"task", "checkpoint", "protocol", "benchmarks"}


@dataclass(frozen=True)
class Models:
    """The model of a checkpoint, and the same model with random weights, as a control."""

    checkpoint: dict[str, str]
    """`path` and `sha256`."""
    trained: Embedder
    untrained: Embedder


def evaluate(project: Mapping[str, Any]) -> dict[str, Any]:
    """Evaluate a checkpoint on one task: `{"task", "checkpoint", "metrics", "chance", "untrained", "data", ...}`.

    `project` has the sections `task` and `checkpoint`. `test_set` is added if the task's YAML names it, and `published`
    if it has numbers for the project's `protocol`. Uses a GPU if there is one; does not need fairseq.
    """
    check_sections(project)
    models = load_models(Path(project["checkpoint"]))
    task = build_task(with_frames(project, models.trained))
    check_model(task, models)
    return measure(task, project, models)


def evaluate_all(
    projects: Mapping[str, Mapping[str, Any]], *, keep: Callable[[dict[str, Any]], None] = lambda outcome: None
) -> dict[str, Any]:
    """Evaluate one checkpoint on several benchmarks, by name: `{"checkpoint", "benchmarks", "not_there", "failed"}`.

    `benchmarks` has the results. `not_there` lists the benchmarks whose files are not on this machine, with what is
    missing and where to get it. Wrong files, and a model that does not fit a benchmark, are a ValueError before
    anything is evaluated. An error during evaluation affects only its benchmark, and is listed in `failed`. `keep` is
    called after each benchmark with the results so far.
    """
    first = next(iter(projects.values()))
    check_sections(first)
    models = load_models(Path(first["checkpoint"]))
    tasks: dict[str, BenchmarkTask] = {}
    not_there: dict[str, dict[str, str]] = {}
    wrong: dict[str, str] = {}
    for name, project in projects.items():
        try:
            tasks[name] = build_task(with_frames(project, models.trained))
            check_model(tasks[name], models)
        except DataNotThere as error:
            not_there[name] = {"missing": str(error), "source": project["task"].get("source", "")}
        except ValueError as error:
            wrong[name] = str(error)
    if wrong:
        reasons = "; ".join(f"{name}: {why}" for name, why in wrong.items())
        rest = [name for name in projects if name not in wrong]
        raise ValueError(f"{reasons}. Nothing was evaluated; to skip these: benchmarks=[{','.join(rest)}]")
    results: dict[str, Any] = {}
    failed: dict[str, str] = {}
    outcome = {"checkpoint": models.checkpoint, "benchmarks": results, "not_there": not_there, "failed": failed}
    for name, task in tasks.items():
        logger.info("evaluating %s", name)
        try:
            results[name] = {"benchmark": name, **measure(task, projects[name], models)}
        except (ValueError, OSError) as error:
            logger.error("%s: %s", name, error)
            failed[name] = str(error)
        keep(outcome)
    return outcome


def check_model(task: BenchmarkTask, models: Models) -> None:
    """Call the task's `check`, which is optional for custom tasks."""
    if hasattr(task, "check"):
        task.check(models.trained)


def check_sections(project: Mapping[str, Any]) -> None:
    """ValueError for a section that evaluation does not use."""
    if unknown := set(project) - SECTIONS:
        raise ValueError(f"evaluation does not use section {sorted(map(str, unknown))}. Possible: {sorted(SECTIONS)}")
    if not isinstance(project.get("checkpoint"), str):
        raise ValueError(f"checkpoint must be a file or a folder, got {project.get('checkpoint')!r}")
    if not isinstance(project.get("protocol"), str | None):
        raise ValueError(f"protocol must be a name, such as zero_shot, got {project['protocol']!r}")


def with_frames(project: Mapping[str, Any], model: Embedder) -> Mapping[str, Any]:
    """The project with the frames that the model reads, where `task.dataset.frames` does not say otherwise."""
    task = project["task"]
    if task is None:
        raise ValueError("the task's YAML is empty, expected _name and dataset")
    dataset = task.get("dataset") or {}
    own, given = getattr(model.config, "frames", None), dataset.get("frames")
    if own is None or given is None:
        return project
    frames = asdict(own) | {key: value for key, value in given.items() if value is not None}
    return {**project, "task": {**task, "dataset": {**dataset, "frames": frames}}}


def build_task(project: Mapping[str, Any]) -> BenchmarkTask:
    """Build the project's task; ValueError for a task that only trains."""
    check_sections(project)
    task = registry.tasks.build(project["task"])
    if not isinstance(task, BenchmarkTask):
        raise ValueError(f"task '{project['task']['_name']}' is only for training: it has no evaluate method")
    return task


def load_models(checkpoint: Path) -> Models:
    """Load the checkpoint's model, and build its untrained control with seed 0, on a GPU if there is one."""
    device = compute_device()
    trained = load_model(checkpoint).to(device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = type(trained)(trained.config).eval().to(device)
    untrained.tokenizer = trained.tokenizer
    return Models({"path": str(checkpoint), "sha256": fingerprint(checkpoint)}, trained, untrained)


def measure(task: BenchmarkTask, project: Mapping[str, Any], models: Models) -> dict[str, Any]:
    """The result of a built task, as `evaluate` returns it."""
    result = task.evaluate(models.trained)
    config = getattr(task, "config", None)
    published = getattr(config, "published", {}).get(project.get("protocol"))
    test_set = getattr(config, "test_set", "")
    return {
        "task": project["task"]["_name"],
        **({"test_set": test_set} if test_set else {}),
        "checkpoint": models.checkpoint,
        **result,
        **({"published": published} if published else {}),
        "untrained": task.evaluate(models.untrained)["metrics"],
    }


def fingerprint(path: Path) -> str:
    """SHA-256 of a checkpoint file, or of model.safetensors in a model's folder."""
    return file_sha256(path / "model.safetensors" if path.is_dir() else path)
