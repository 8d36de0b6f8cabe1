"""Contrastive pre-training on narrated video."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import cycle, islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import nn
from torch.utils.data import DataLoader

from mmpt_plugin import registry
from mmpt_plugin.clips.batch import Cluster
from mmpt_plugin.distributed import all_gather, rank, world_size
from mmpt_plugin.registry import register_task

EMBEDDING_CHUNK = 32  # videos whose clips are embedded at a time


@dataclass(kw_only=True)
class VideoTextPretrainingConfig:
    dataset: dict[str, Any] = field(default_factory=dict)
    """Which data set, {_name: overlapped_clips, splits: {train: ..., valid: ...}}."""
    sampler: dict[str, Any] = field(default_factory=lambda: {"_name": "uniform"})
    """Which videos share a batch, {_name: retrieval_augmented, videos_per_batch: 32, clusters_from: 64}."""


@register_task("video_text_pretraining", dataclass=VideoTextPretrainingConfig)
class VideoTextPretraining:
    """Learn from pairs of clips which video belongs to which text."""

    def __init__(self, config: VideoTextPretrainingConfig) -> None:
        self.config = config

    def dataset(self, split: str) -> Any:
        """`len()` is the number of videos, and `dataset[Cluster]` a Batch."""
        return registry.datasets.build(self.config.dataset, split)

    def sampler(self, dataset: Any, *, split: str, seed: int) -> Any:
        """The sampler of the training split; other splits are taken in uniform batches of the same size."""
        config: Mapping[str, Any] = self.config.sampler
        if split != "train":
            size = min(config.get("videos_per_batch", 32), len(dataset))
            config = {"_name": "uniform", "videos_per_batch": size}
        return registry.samplers.build(config, num_videos=len(dataset), seed=seed)


@torch.no_grad()
def embed_videos(
    model: nn.Module, dataset: Any, *, seed: int, epoch: int, device: torch.device, num_workers: int = 0
) -> Float[np.ndarray, "V D"]:
    """A vector a video: the mean over its clip pairs of (video + text) / 2 (VideoCLIP, section 3.3).

    Under torch.distributed each rank embeds its share of the videos, and all ranks get all vectors. The clips
    drawn depend on seed and epoch alone.
    """
    chunks = [
        Cluster(seed, epoch, number, tuple(range(begin, min(begin + EMBEDDING_CHUNK, len(dataset)))))
        for number, begin in enumerate(range(0, len(dataset), EMBEDDING_CHUNK))
    ]
    rounds = -(-len(chunks) // world_size())
    mine = list(islice(cycle(chunks), rounds * world_size()))[rank() :: world_size()]
    training = model.training
    model.eval()
    means = []
    for batch in DataLoader(dataset, sampler=mine, batch_size=None, num_workers=num_workers):
        video, text = model(batch.to(device))
        pairs = ((video + text) / 2).float()
        videos = len(batch.video_ids.unique())
        mean = pairs.view(videos, -1, pairs.shape[1]).mean(dim=1)
        means.append(nn.functional.pad(mean, (0, 0, 0, EMBEDDING_CHUNK - videos)))
    model.train(training)
    gathered = all_gather(torch.cat(means)).view(world_size(), -1, EMBEDDING_CHUNK, means[0].shape[1])
    in_order = gathered.transpose(0, 1).reshape(-1, means[0].shape[1])
    return np.asarray(in_order[: len(dataset)].cpu().numpy())
