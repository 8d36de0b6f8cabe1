"""Batches of videos that the model itself finds similar: hard negatives, indexed anew every epoch."""

import logging
from dataclasses import dataclass

import numpy as np
from jaxtyping import Int

from mmpt_plugin.index import nearest
from mmpt_plugin.registry import register_sampler
from mmpt_plugin.samplers.uniform import Embed, UniformConfig, require_videos

logger = logging.getLogger(__name__)


@dataclass(kw_only=True)
class RetrievalAugmentedConfig(UniformConfig):
    clusters_from: int = 64
    """2k: how many neighbours of a centre the k = videos_per_batch of a cluster are drawn from."""
    metric: str = "inner_product"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.clusters_from < self.videos_per_batch:
            raise ValueError(
                f"sampler.clusters_from {self.clusters_from} is smaller than "
                f"sampler.videos_per_batch {self.videos_per_batch}"
            )


@register_sampler("retrieval_augmented", dataclass=RetrievalAugmentedConfig)
class RetrievalAugmented:
    """C random centre videos; of each one's 2k nearest, k at random make a cluster (VideoCLIP, section 3.3).

    C is the number of clusters that hold every video once. Videos may be missed in an epoch or come several
    times: how many are, is logged.
    """

    def __init__(self, config: RetrievalAugmentedConfig, *, num_videos: int, seed: int) -> None:
        require_videos(num_videos, config.clusters_from, "clusters_from")
        self.config = config
        self.num_videos = num_videos
        self.seed = seed

    def clusters(self, epoch: int, embed: Embed) -> Int[np.ndarray, "C K"]:
        """Video indices, a row a cluster; the same for equal seed, epoch and embeddings. Calls `embed` once."""
        vectors = embed()
        size = self.config.videos_per_batch
        rng = np.random.default_rng([self.seed, epoch])
        centres = rng.choice(self.num_videos, -(-self.num_videos // size), replace=False)
        neighbours = nearest(vectors, vectors[centres], self.config.clusters_from, metric=self.config.metric)
        clusters = rng.permuted(neighbours, axis=1)[:, :size]
        seen = len(np.unique(clusters))
        logger.info(
            "epoch %d: %d clusters of %d videos show %d of %d videos (%.0f %%)",
            epoch, len(clusters), size, seen, self.num_videos, 100 * seen / self.num_videos,
        )  # fmt: skip
        return clusters
