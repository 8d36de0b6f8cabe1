"""Contrastive pre-training on narrated video."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmpt_plugin import registry
from mmpt_plugin.registry import register_task


@dataclass(kw_only=True)
class VideoTextPretrainingConfig:
    dataset: dict[str, Any] = field(default_factory=dict)
    """Which data set, {_name: overlapped_clips, splits: {train: ..., valid: ...}}."""
    sampler: dict[str, Any] = field(default_factory=lambda: {"_name": "uniform"})
    """Which videos share a batch, {_name: retrieval_augmented, videos_per_batch: 32, clusters_from: 64}."""
    reuse_training_embeddings: bool = False
    """Index each epoch by the embeddings that training made in the one before, instead of a pass over all videos.

    Only a run's first epoch, and the first after a resume, take that pass. `samplers.dataset_embeddings.RunningMeans`
    says what is stale about these vectors.
    """

    def __post_init__(self) -> None:
        if self.reuse_training_embeddings and self.sampler.get("sharded"):
            raise ValueError(
                "task.reuse_training_embeddings keeps all vectors on every rank, which sampler.sharded forbids: "
                "turn one of them off"
            )


@register_task("video_text_pretraining", dataclass=VideoTextPretrainingConfig)
class VideoTextPretraining:
    """Learn from pairs of clips which video belongs to which text."""

    def __init__(self, config: VideoTextPretrainingConfig) -> None:
        self.config = config
        self.train_split = "train"
        """Which split is trained on; the others are validated on."""
        self.video_ids: dict[str, Sequence[str]] = {}

    def dataset(self, split: str) -> Any:
        """`len()` is the number of videos, and `dataset[Cluster]` a Batch; no split has videos that train has."""
        dataset = registry.datasets.build(self.config.dataset, split)
        self.keep_apart(f"split '{split}'", dataset)
        return dataset

    def keep_apart(self, name: str, dataset: Any) -> None:
        """ValueError where what is trained on and what is validated on share videos."""
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
                    f"{', '.join(both[:5])}: validate on others, or not at all (dataset.disable_validation=true)"
                )

    def sampler(self, dataset: Any, *, split: str, seed: int) -> Any:
        """The sampler of the training split; other splits are taken in uniform batches of the same size."""
        config: Mapping[str, Any] = self.config.sampler
        if split != self.train_split:
            size = min(config.get("videos_per_batch", 32), len(dataset))
            config = {"_name": "uniform", "videos_per_batch": size}
        return registry.samplers.build(config, num_videos=len(dataset), seed=seed)


def video_ids_of(dataset: Any) -> Sequence[str] | None:
    """The ids of a data set's videos, which its corpus or its shards may hold; None where it does not tell them."""
    for owner in (dataset, getattr(dataset, "corpus", None), getattr(dataset, "shards", None)):
        video_ids: Sequence[str] | None = getattr(owner, "video_ids", None)
        if video_ids is not None:
            return video_ids
    return None
