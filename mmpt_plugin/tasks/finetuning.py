"""Fine-tuning on a benchmark's own training data, measured by the benchmark itself as training goes on."""

from dataclasses import dataclass, field
from typing import Any

from mmpt_plugin import registry
from mmpt_plugin.models.embedding import Embedder
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
        self.benchmark: Any = None

    def dataset(self, split: str) -> Any:
        """A validation split brings the benchmark with it: what is wrong with it is said before training."""
        dataset = super().dataset(split)
        if split != self.train_split:
            self._build_benchmark()
        return dataset

    def _build_benchmark(self) -> None:
        if self.config.benchmark and self.benchmark is None:
            self.benchmark = registry.tasks.build(self.config.benchmark)
            self.keep_apart("the validation benchmark", self.benchmark.dataset)

    def measure(self, model: Embedder) -> dict[str, float]:
        """The benchmark's metrics, none where there is no benchmark."""
        if not self.config.benchmark:
            return {}
        self._build_benchmark()
        metrics: dict[str, float] = self.benchmark.evaluate(model)["metrics"]
        return metrics
