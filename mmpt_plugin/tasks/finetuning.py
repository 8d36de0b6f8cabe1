"""Fine-tuning on a benchmark's training data, with evaluation on the benchmark at each validation."""

from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from mmpt_plugin import registry
from mmpt_plugin.errors import unknown_name
from mmpt_plugin.registry import register_task
from mmpt_plugin.tasks.pretraining import VideoTextPretraining, VideoTextPretrainingConfig


@dataclass(kw_only=True)
class FineTuningTaskConfig(VideoTextPretrainingConfig):
    """The training data of fine-tuning, and the benchmark for validation."""


@register_task("finetuning", dataclass=FineTuningTaskConfig)
class FineTuning(VideoTextPretraining):
    """Fine-tuning on the training data of a benchmark, which is also evaluated at each validation."""


FINETUNE_KEYS = ["dataset", "benchmark", "metric"]
"""Keys of the `finetune` section of a task's YAML; all other training settings belong to the project."""


def fine_tuned(project: dict[str, Any]) -> dict[str, Any]:
    """The fine-tuning project of a benchmark: it trains on the data of `task.finetune`, and evaluates on valid.

    A project without `task.finetune` is returned unchanged. Each split, and the data set of `finetune.benchmark`,
    inherits the keys of `task.dataset` that it does not set, so `task.dataset.features=...` applies to all of them. To
    override a key that a split sets, use its full path, such as
    `task.finetune.dataset.splits.train.annotations=...`. Null unsets an inherited key.
    """
    task = dict(project.get("task") or {})
    recipe = task.pop("finetune", None)
    if not recipe:
        return project
    for key in recipe:
        if key not in FINETUNE_KEYS:
            raise ValueError(unknown_name("key", f"task.finetune.{key}", FINETUNE_KEYS, guess=key))
    own = (recipe.get("dataset") or {}).get("splits")
    if not own:
        raise ValueError("task.finetune.dataset.splits is missing, expected {train: {...}, valid: {...}}")
    tested = task.get("dataset") or {}
    splits = {split: inherited(section or {}, tested) for split, section in own.items()}
    measured = recipe.get("benchmark") or (task | {"dataset": splits["valid"]} if "valid" in splits else {})
    if measured:
        measured = measured | {"dataset": inherited(measured.get("dataset") or {}, tested)}
    dataset = recipe["dataset"] | {"splits": splits}
    return project | {"task": {"_name": "finetuning", "dataset": dataset, "benchmark": measured}}


def inherited(section: dict[str, Any], tested: dict[str, Any]) -> dict[str, Any]:
    """A split's settings, completed from `tested`: with all keys for the same corpus, else with the shared ones."""
    name, other = section.get("_name"), tested.get("_name")
    if None in (name, other) or name == other:
        return tested | section
    shared = shared_keys(registry.corpora[str(name)].config, registry.corpora[str(other)].config)
    return {key: value for key, value in tested.items() if key in shared} | section


def shared_keys(one: type, other: type) -> set[str]:
    """The fields that two configs inherit from common dataclasses, except `annotations`, which differ by corpus."""
    bases = [base for base in one.__mro__ if is_dataclass(base) and issubclass(other, base)]
    return {field.name for base in bases for field in fields(base)} - {"annotations"}
