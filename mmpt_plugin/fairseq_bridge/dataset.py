"""A data set and its sampler as fairseq's trainer wants them: an item is a cluster of videos."""

from typing import Any

import numpy as np
from fairseq.data import FairseqDataset
from jaxtyping import Int
from torch import Tensor

from mmpt_plugin.batch import Batch, Cluster, concatenate
from mmpt_plugin.protocols import Dataset


class ClusterDataset(FairseqDataset):
    """Serves the clusters of one epoch, which its task plans before fairseq asks for batches.

    The items are the clusters themselves rather than indices into a list of them: a loader's workers hold a copy
    of this object from when they were started, and must not need anything newer.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.clusters: list[Cluster] = []
        self.batches_multiple_of = 1
        self.fill = True

    def plan(
        self, clusters: Int[np.ndarray, "C K"], *, seed: int, epoch: int, num_shards: int, fill: bool = True
    ) -> None:
        """From now on batches are made of these videos; every rank must plan the same.

        `fill` is for training; a validation counts every cluster once, whatever the number of ranks.
        """
        self.batches_multiple_of = num_shards
        self.fill = fill
        rows = enumerate(clusters.tolist())
        self.clusters = [Cluster(seed, epoch, number, tuple(videos)) for number, videos in rows]

    def __len__(self) -> int:
        return len(self.clusters)

    def __getitem__(self, cluster: Cluster) -> Batch:
        batch: Batch = self.dataset[cluster]
        return batch

    def collater(self, samples: list[Batch]) -> dict[str, Tensor]:
        return concatenate(samples, pad_id=self.dataset.pad_id).tensors() if samples else {}

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """A reused iterator would serve the clusters of the first epoch for ever."""
        return False

    def batch_by_size(
        self,
        indices: Any,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[list[Cluster]]:
        """Batches of `--batch-size` clusters, in the sampler's order.

        In training every rank must get equally many full ones, since the loss is over the pairs of all ranks: clusters
        from the epoch's beginning, their clips drawn again, fill up the last round. (fairseq's own batching would drop
        the last cluster of an epoch where batches hold one.)
        """
        size = max_sentences or 1
        fill = -len(self.clusters) % (size * self.batches_multiple_of) if self.fill else 0
        whole = [*self.clusters]
        for number in range(fill):
            whole.append(self.clusters[number % len(self.clusters)]._replace(number=len(whole)))
        return [whole[i : i + size] for i in range(0, len(whole), size)]

    def num_tokens(self, index: Any) -> int:
        return 1

    def size(self, index: Any) -> int:
        return 1
