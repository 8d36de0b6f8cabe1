"""A checkpoint measured on a project's task, beside its controls."""

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from mmpt_plugin import registry
from mmpt_plugin.models import VideoCLIP


def evaluate(project: Mapping[str, Any]) -> dict[str, Any]:
    """`{"task", "checkpoint", "metrics", "chance", "untrained", ...}`; no fairseq needed.

    `untrained` is the same model with its random weights of before any training. A CUDA device is used where
    there is one.
    """
    if unknown := set(project) - {"task", "checkpoint"}:
        raise ValueError(f"an evaluation has no section {sorted(unknown)}. Possible: ['checkpoint', 'task']")
    checkpoint = Path(project["checkpoint"])
    task = registry.tasks.build(project["task"])
    if not hasattr(task, "evaluate"):
        raise ValueError(f"task '{project['task']['_name']}' is for training: it has nothing to evaluate")
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = VideoCLIP.from_pretrained(checkpoint).to(device)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        untrained = VideoCLIP(model.config).eval().to(device)
    result: dict[str, Any] = task.evaluate(model)
    return {
        "task": project["task"]["_name"],
        "checkpoint": {"path": str(checkpoint), "sha256": fingerprint(checkpoint)},
        **result,
        "untrained": task.evaluate(untrained)["metrics"],
    }


def fingerprint(path: Path) -> str:
    """sha256 of a checkpoint file, or of the weights in a model's folder."""
    with (path / "model.safetensors" if path.is_dir() else path).open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
