"""Contrastive pre-training on narrated video."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmpt_plugin import registry
from mmpt_plugin.protocols import Dataset, Sampler
from mmpt_plugin.registry import register_task


@dataclass(kw_only=True)
class VideoTextPretrainingConfig:
    """What is trained on, and which videos share a batch."""

    dataset: dict[str, Any] = field(default_factory=dict)
    """Data to train on, such as `{_name: overlapped_clips, splits: {train: FOLDER, valid: FOLDER}}`."""
    sampler: dict[str, Any] = field(default_factory=lambda: {"_name": "uniform"})
    """Sampler that decides which videos share a batch, such as `{_name: uniform}`; a project sets it as `sampler`."""
    reuse_training_embeddings: bool = False
    """Index each epoch by the embeddings that training computed in the epoch before, instead of embedding all videos
    again. Only the first epoch of a run, and the first after it resumes, embed all videos. The reused embeddings are
    stale by about half an epoch (`samplers.dataset_embeddings.RunningMeans`); use them with `sampler.cover`."""

    def __post_init__(self) -> None:
        if self.reuse_training_embeddings and self.sampler.get("sharded"):
            raise ValueError(
                "task.reuse_training_embeddings keeps all vectors on every rank, which sampler.sharded forbids: "
                "turn one of them off"
            )


@register_task("video_text_pretraining", dataclass=VideoTextPretrainingConfig)
class VideoTextPretraining:
    """Contrastive training on pairs of video and text clips (VideoCLIP, section 3)."""

    def __init__(self, config: VideoTextPretrainingConfig) -> None:
        self.config = config
        self.train_split = "train"
        """Which split is trained on; the others are validated on."""
        self.video_ids: dict[str, Sequence[str]] = {}

    def dataset(self, split: str) -> Dataset:
        """`len()` is the number of videos, and `dataset[Cluster]` a Batch; no split has videos that train has."""
        dataset = registry.datasets.build(self.config.dataset, split)
        self.keep_apart(f"split '{split}'", dataset)
        return dataset

    def keep_apart(self, name: str, dataset: object) -> None:
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

    def sampler(self, dataset: Dataset, *, split: str, seed: int) -> Sampler:
        """The sampler of the training split; other splits are taken in uniform batches of the same size."""
        config: Mapping[str, Any] = self.config.sampler
        if split != self.train_split:
            size = min(config.get("cluster_size", 32), len(dataset))
            config = {"_name": "uniform", "cluster_size": size}
        return registry.samplers.build(config, num_videos=len(dataset), seed=seed)


def video_ids_of(dataset: object) -> Sequence[str] | None:
    """The ids of a data set's videos, which its corpus or its shards may hold; None where it does not tell them."""
    for owner in (dataset, getattr(dataset, "corpus", None), getattr(dataset, "shards", None)):
        video_ids: Sequence[str] | None = getattr(owner, "video_ids", None)
        if video_ids is not None:
            return video_ids
    return None
