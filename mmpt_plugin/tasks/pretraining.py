"""Contrastive pre-training on narrated video, with evaluation on a benchmark at each validation."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

from mmpt_plugin import moved, registry
from mmpt_plugin.models.embedding import Embedder
from mmpt_plugin.protocols import BenchmarkTask, Dataset, Sampler
from mmpt_plugin.registry import register_task


@dataclass(kw_only=True)
class VideoTextPretrainingConfig:
    """The training data, the sampler that forms batches, and the benchmark for validation."""

    dataset: dict[str, Any] = field(default_factory=dict)
    """Training data, such as `{_name: overlapped_clips, splits: {train: FOLDER, valid: FOLDER}}`."""
    sampler: dict[str, Any] = field(default_factory=lambda: {"_name": "uniform"})
    """Sampler that chooses the videos of each batch, such as `{_name: uniform}`. A project sets it in its section
    `sampler`."""
    reuse_training_embeddings: bool = False
    """For each epoch, index the embeddings that training computed in the previous epoch, instead of embedding all
    videos again. Only the first epoch of a run, and the first after it resumes, embed all videos. Reused embeddings
    are stale by about half an epoch (`samplers.dataset_embeddings.RunningMeans`); use them with `sampler.cover`."""
    benchmark: dict[str, Any] = field(default_factory=dict)
    """Task evaluated at each validation, on held-out videos: `{_name: text_video_retrieval, dataset: ...}`. Its metrics
    can be used as `checkpoint.best_checkpoint_metric`. Needs `dataset.disable_validation=false`, but no validation
    split."""
    source: str = ""
    """Where to get the data; shown if its files are missing."""

    def __post_init__(self) -> None:
        if self.reuse_training_embeddings and self.sampler.get("sharded"):
            raise ValueError(
                "task.reuse_training_embeddings keeps all vectors on every rank, which conflicts with "
                "sampler.sharded: set one of them to false"
            )


@register_task("video_text_pretraining", dataclass=VideoTextPretrainingConfig)
class VideoTextPretraining:
    """Contrastive training on pairs of video and text clips (VideoCLIP, section 3)."""

    def __init__(self, config: VideoTextPretrainingConfig) -> None:
        self.config = config
        self.train_split = "train"
        """Name of the training split; all other splits are for validation."""
        self.video_ids: dict[str, Sequence[str]] = {}
        """Ids of the videos of each data set built so far, by its name in error messages."""
        self.benchmark: BenchmarkTask | None = None
        """The benchmark for validation, once it is built."""

    def dataset(self, split: str) -> Dataset:
        """Build the data set of a split; ValueError if it shares videos with the training split.

        A validation split also builds the benchmark, to report errors early.
        """
        dataset = registry.datasets.build(self.config.dataset, split)
        self.keep_apart(f"split '{split}'", dataset)
        if split != self.train_split:
            self.build_benchmark()
        return dataset

    def has_benchmark_only(self, split: str) -> bool:
        """Whether a validation split has no data of its own, so that validation consists of the benchmark."""
        splits = self.config.dataset.get("splits")
        return bool(self.config.benchmark) and isinstance(splits, Mapping) and not splits.get(split)

    def build_benchmark(self) -> BenchmarkTask | None:
        """The benchmark for validation, built once; None if none is configured.

        Raises ValueError if it contains training videos.
        """
        if self.config.benchmark and self.benchmark is None:
            self.benchmark = cast(BenchmarkTask, registry.tasks.build(self.config.benchmark))
            self.keep_apart("the validation benchmark", getattr(self.benchmark, "dataset", None))
        return self.benchmark

    def measure(self, model: Embedder) -> dict[str, float]:
        """The metrics of the benchmark, and the values of chance as `chance_NAME`; empty if none is configured."""
        benchmark = self.build_benchmark()
        if benchmark is None:
            return {}
        result = benchmark.evaluate(model)
        metrics: dict[str, float] = result["metrics"]
        return metrics | {f"chance_{name}": value for name, value in result.get("chance", {}).items()}

    def keep_apart(self, name: str, dataset: object) -> None:
        """ValueError if a data set used for validation shares videos with the training split.

        `name` is that of `dataset` in the error message.
        """
        video_ids = video_ids_of(dataset)
        if video_ids is None:
            return
        self.video_ids[name] = video_ids
        trained = f"split '{self.train_split}'"
        training = self.video_ids.get(trained, ())
        for other in [key for key in self.video_ids if key != trained and name in (key, trained)]:
            validation = set(self.video_ids[other])
            if both := sorted(validation.intersection(training)):
                raise ValueError(
                    f"{other} has {len(both)} of its {len(validation)} videos in common with {trained}, such as "
                    f"{', '.join(both[:5])}: validate on other videos, or set dataset.disable_validation=true"
                )

    def sampler(self, dataset: Dataset, *, split: str, seed: int) -> Sampler:
        """The configured sampler for the training split; uniform clusters of the same size for other splits."""
        config: Mapping[str, Any] = self.config.sampler
        if split != self.train_split:
            size = min(config.get("cluster_size", 32), len(dataset))
            config = {"_name": "uniform", "cluster_size": size}
        return registry.samplers.build(config, num_videos=len(dataset), seed=seed)


def video_ids_of(dataset: object) -> Sequence[str] | None:
    """The ids of a data set's videos, from the data set, its corpus or its shards; None if it has none."""
    for owner in (dataset, getattr(dataset, "corpus", None), getattr(dataset, "shards", None)):
        video_ids: Sequence[str] | None = getattr(owner, "video_ids", None)
        if video_ids is not None:
            return video_ids
    return None


__getattr__ = moved.attributes(__name__)
