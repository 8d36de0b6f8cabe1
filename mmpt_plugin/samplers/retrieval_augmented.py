"""Clusters of videos that are similar under the current model, as hard negatives; indexed again for every epoch.

V videos, D embedding width, C clusters of K videos each.
"""

import logging
from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.index import SharedQueries, SharedVectors, build_index
from mmpt_plugin.protocols import Embed
from mmpt_plugin.registry import register_sampler
from mmpt_plugin.samplers.coverage import coverage
from mmpt_plugin.samplers.uniform import Uniform, UniformConfig, require_videos

logger = logging.getLogger(__name__)

Neighbors = SharedQueries | SharedVectors

SPREAD = 2  # a covering round looks up 1 / SPREAD as many neighbors as there are unused videos, so few are shared


@dataclass(kw_only=True)
class RetrievalAugmentedConfig(UniformConfig):
    """Sampling of clusters of similar videos; the defaults are the paper's (VideoCLIP, sections 3.3 and 5.2)."""

    num_neighbors: int = 64
    """Number of nearest videos of a random center, from which the videos of a cluster are drawn: the paper's 2k."""
    distance: str = "l2"
    """Metric of the nearest-neighbor search: l2 (smallest Euclidean distance), as in the original code, or
    inner_product (largest dot product), by which a few long vectors are near to all others."""
    index_recall: float = 0.95
    """Share of the exact nearest videos that the index must find, in (0, 1]. The index is tuned to reach it. 1 means
    exact search, which compares every pair of videos."""
    cover: bool = False
    """Show every video in every epoch. The paper's sampling misses some videos and repeats others."""
    sharded: bool = False
    """Keep on each rank only its share of the vectors. Use it if the vectors of all videos do not fit into the memory
    of one machine."""

    RENAMED: ClassVar[dict[str, str]] = UniformConfig.RENAMED | {
        "clusters_from": "num_neighbors",
        "metric": "distance",
        "recall": "index_recall",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_neighbors < self.cluster_size:
            raise ValueError(
                f"sampler.num_neighbors {self.num_neighbors} is smaller than sampler.cluster_size {self.cluster_size}"
            )
        if not 0 < self.index_recall <= 1:
            raise ValueError(f"sampler.index_recall must be in (0, 1], got {self.index_recall}")


@register_sampler("retrieval_augmented", dataclass=RetrievalAugmentedConfig)
class RetrievalAugmented(Uniform):
    """Clusters of k videos drawn at random from the 2k nearest neighbors of a random center (VideoCLIP, section 3.3).

    An epoch has ceil(number of videos / k) clusters. Unless `cover` is set, it misses some videos and repeats others;
    their numbers are logged.
    """

    config: RetrievalAugmentedConfig

    def __init__(self, config: RetrievalAugmentedConfig, *, num_videos: int, seed: int) -> None:
        require_videos(num_videos, config.num_neighbors, "num_neighbors")
        super().__init__(config, num_videos=num_videos, seed=seed)

    def clusters(self, epoch: int, embed: Embed) -> Int[np.ndarray, "C K"]:
        """Video indices, one row per cluster; equal on all ranks, and for equal seed, epoch and embeddings.

        Calls `embed` once. Embeddings with NaN or infinity are a ValueError.
        """
        config = self.config
        vectors = embed(gather=not config.sharded)
        check_finite(vectors, epoch)
        index = build_index(
            vectors, k=config.num_neighbors, metric=config.distance, recall=config.index_recall, seed=epoch
        )
        neighbors = SharedVectors(index) if config.sharded else SharedQueries(index)
        draw = covering_clusters if config.cover else random_clusters
        rng = np.random.default_rng([self.seed, epoch])
        clusters = draw(neighbors, self.num_videos, config.cluster_size, config.num_neighbors, rng)
        logger.info(
            "epoch %d: %d clusters of %d videos show %s", epoch, *clusters.shape, coverage(clusters, self.num_videos)
        )
        return clusters


def check_finite(vectors: Float[np.ndarray, "V D"], epoch: int) -> None:
    """ValueError if a vector contains NaN or infinity.

    Checks the sum of each vector, because a mask of all values may not fit into memory.
    """
    wrong = np.flatnonzero(~np.isfinite(vectors.sum(axis=1, dtype=np.float32)))
    if len(wrong):
        raise ValueError(
            f"the embeddings of {len(wrong)} of {len(vectors)} videos are not finite before epoch {epoch}, such as "
            f"video {wrong[0]}: training has diverged, or their features contain NaN"
        )


def random_clusters(
    index: Neighbors, num_videos: int, size: int, candidates: int, rng: np.random.Generator
) -> Int[np.ndarray, "C K"]:
    """Clusters of `size` of the `candidates` nearest neighbors of random centers; clusters may overlap."""
    centers = rng.choice(num_videos, -(-num_videos // size), replace=False)
    return rng.permuted(index.neighbors(centers, candidates), axis=1)[:, :size]


def covering_clusters(
    index: Neighbors, num_videos: int, size: int, candidates: int, rng: np.random.Generator
) -> Int[np.ndarray, "C K"]:
    """Clusters without replacement: the unused videos nearest to a center are split at random into clusters.

    If centers of one round share neighbors, the later center has fewer videos left, and makes fewer clusters, or none.
    The last cluster is completed with used videos near to the remaining ones.
    """
    clusters, free = [], np.ones(num_videos, dtype=bool)
    while free.sum() >= size:
        unused = np.flatnonzero(free)
        centers = rng.choice(unused, max(1, len(unused) // (SPREAD * candidates)), replace=False)
        near = index.only(unused).neighbors(centers, min(candidates, len(unused)))
        for row in rng.permuted(near, axis=1):
            taken = row[free[row]]
            taken = taken[: len(taken) // size * size]
            free[taken] = False
            clusters.extend(taken.reshape(-1, size))
    if free.any():
        rest = np.flatnonzero(free)
        near = index.neighbors(rest[:1], size)[0]
        clusters.append(np.concatenate([rest, near[~free[near]]])[:size])
    return rng.permutation(np.stack(clusters))  # mixes the last clusters, of remaining videos, with the others
