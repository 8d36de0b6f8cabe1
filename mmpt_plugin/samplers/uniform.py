"""Random clusters that show every video once per epoch."""

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Int

from mmpt_plugin.protocols import Embed
from mmpt_plugin.registry import register_sampler


@dataclass(kw_only=True)
class UniformConfig:
    """The size of clusters."""

    cluster_size: int = 32
    """Videos per cluster; a batch holds `dataset.batch_size` clusters per GPU. The paper pre-trains with 32
    (VideoCLIP, section 5.2)."""

    RENAMED: ClassVar[dict[str, str]] = {"videos_per_batch": "cluster_size"}

    def __post_init__(self) -> None:
        if self.cluster_size < 1:
            raise ValueError(f"sampler.cluster_size must be at least 1, got {self.cluster_size}")


@register_sampler("uniform", dataclass=UniformConfig)
class Uniform:
    """Random clusters that show every video once per epoch.

    If the number of videos is not a multiple of `cluster_size`, videos of the first cluster complete the last one.
    """

    def __init__(self, config: UniformConfig, *, num_videos: int, seed: int) -> None:
        require_videos(num_videos, config.cluster_size, "cluster_size")
        self.config = config
        self.num_videos = num_videos
        self.seed = seed

    @property
    def num_clusters(self) -> int:
        """Number of clusters per epoch."""
        return -(-self.num_videos // self.config.cluster_size)

    def clusters(self, epoch: int, embed: Embed) -> Int[np.ndarray, "C K"]:
        """Video indices, one row per cluster; equal for equal seed and epoch. Does not call `embed`."""
        order = np.random.default_rng([self.seed, epoch]).permutation(self.num_videos)
        shape = self.num_clusters, self.config.cluster_size
        return np.resize(order, shape[0] * shape[1]).reshape(shape)


def require_videos(num_videos: int, needed: int, key: str) -> None:
    """ValueError if a split has fewer videos than `sampler.{key}` needs."""
    if num_videos < needed:
        raise ValueError(f"sampler.{key} is {needed}, but the split has only {num_videos} videos")
