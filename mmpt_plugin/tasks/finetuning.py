"""Fine-tuning on a benchmark's own training data, measured by the benchmark itself as training goes on."""

from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any, cast

from mmpt_plugin import registry
from mmpt_plugin.errors import unknown_name
from mmpt_plugin.models.embedding import Embedder
from mmpt_plugin.protocols import BenchmarkTask, Dataset
from mmpt_plugin.registry import register_task
from mmpt_plugin.tasks.pretraining import VideoTextPretraining, VideoTextPretrainingConfig


@dataclass(kw_only=True)
class FineTuningTaskConfig(VideoTextPretrainingConfig):
    """What fine-tuning trains on, and the benchmark that validates it."""

    benchmark: dict[str, Any] = field(default_factory=dict)
    """Task measured at each validation, on data that is not trained on: `{_name: text_video_retrieval, dataset: ...}`.
    Its metrics can be used as `checkpoint.best_checkpoint_metric`."""


@register_task("finetuning", dataclass=FineTuningTaskConfig)
class FineTuning(VideoTextPretraining):
    """Training on the data of a benchmark, which is also measured at each validation."""

    config: FineTuningTaskConfig

    def __init__(self, config: FineTuningTaskConfig) -> None:
        super().__init__(config)
        self.benchmark: BenchmarkTask | None = None

    def dataset(self, split: str) -> Dataset:
        """A validation split brings the benchmark with it: what is wrong with it is said before training."""
        dataset = super().dataset(split)
        if split != self.train_split:
            self._build_benchmark()
        return dataset

    def _build_benchmark(self) -> BenchmarkTask | None:
        if self.config.benchmark and self.benchmark is None:
            self.benchmark = cast(BenchmarkTask, registry.tasks.build(self.config.benchmark))
            self.keep_apart("the validation benchmark", getattr(self.benchmark, "dataset", None))
        return self.benchmark

    def measure(self, model: Embedder) -> dict[str, float]:
        """The benchmark's metrics, none where there is no benchmark."""
        benchmark = self._build_benchmark()
        metrics: dict[str, float] = {} if benchmark is None else benchmark.evaluate(model)["metrics"]
        return metrics


FINETUNE_KEYS = ["dataset", "benchmark", "metric"]
"""What the `finetune` section of a task's YAML may say. How to train is the project's to say."""


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
    for key in recipe:
        if key not in FINETUNE_KEYS:
            raise ValueError(unknown_name("key", f"task.finetune.{key}", FINETUNE_KEYS, guess=key))
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
    shared = shared_keys(registry.corpora[str(name)].config, registry.corpora[str(other)].config)
    return {key: value for key, value in tested.items() if key in shared} | section


def shared_keys(one: type, other: type) -> set[str]:
    """The fields of the dataclasses that both derive from; not `annotations`, which each corpus has of its own."""
    bases = [base for base in one.__mro__ if is_dataclass(base) and issubclass(other, base)]
    return {field.name for base in bases for field in fields(base)} - {"annotations"}
