"""Adapts a dataset and its sampler to fairseq's trainer: an item is a cluster of videos."""

from typing import Any

import numpy as np
import torch
from fairseq.data import FairseqDataset
from jaxtyping import Int
from torch import Tensor

from mmpt_plugin.batch import Batch, Cluster, concatenate
from mmpt_plugin.protocols import Dataset


class ClusterDataset(FairseqDataset):
    """Serves the clusters of one epoch, which the task plans before fairseq requests batches.

    fairseq's indices are the clusters themselves, not positions in a list of clusters: loader workers hold a copy of
    this object from the time when they started, so they could not look up newer clusters.
    """

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset
        self.clusters: list[Cluster] = []
        self.batches_multiple_of = 1
        self.fill = True

    def plan(
        self, clusters: Int[np.ndarray, "C K"], *, seed: int, epoch: int, num_shards: int, fill: bool = True
    ) -> None:
        """Set the clusters for the next batches; all ranks must plan the same clusters.

        `fill` is for training. Validation uses every cluster exactly once, for any number of ranks.
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
        """The tensors of one batch from those of its clusters; empty if there are no clusters."""
        if not samples:
            return {}
        batch: Batch = concatenate(samples, pad_id=self.dataset.pad_id).packed()
        return batch.tensors()

    @property
    def can_reuse_epoch_itr_across_epochs(self) -> bool:
        """False, because a reused iterator would serve the clusters of the first epoch in every epoch."""
        return False

    def batch_by_size(
        self,
        indices: Any,
        max_tokens: int | None = None,
        max_sentences: int | None = None,
        required_batch_size_multiple: int = 1,
    ) -> list[list[Cluster]]:
        """Batches of `--batch-size` clusters, in the sampler's order.

        In training, every rank must get the same number of full batches, because the loss is over the pairs of all
        ranks. Clusters from the beginning of the epoch, with newly sampled clips, fill the last batches. (fairseq's own
        batching would drop the last cluster of an epoch if batches hold one cluster.)
        """
        size = max_sentences or 1
        fill = -len(self.clusters) % (size * self.batches_multiple_of) if self.fill else 0
        whole = [*self.clusters]
        for number in range(fill):
            whole.append(self.clusters[number % len(self.clusters)]._replace(number=len(whole)))
        return [whole[i : i + size] for i in range(0, len(whole), size)]

    def num_tokens(self, index: Any) -> int:
        """1, because batches are measured in clusters."""
        return 1

    def size(self, index: Any) -> int:
        """1, because batches are measured in clusters."""
        return 1


class BenchmarkOnly(FairseqDataset):
    """Stands for a validation split without data: one batch, for which the task evaluates its benchmark."""

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return index

    def collater(self, samples: list[int]) -> dict[str, Tensor]:
        """A batch that is not empty, because fairseq replaces an empty one; empty for a rank that has none."""
        return {"benchmark": torch.tensor(samples)} if samples else {}

    def batch_by_size(self, indices: Any, *_: Any, **__: Any) -> list[list[int]]:
        """One batch."""
        return [[0]]

    def num_tokens(self, index: Any) -> int:
        """1, as in `ClusterDataset`."""
        return 1

    def size(self, index: Any) -> int:
        """1, as in `ClusterDataset`."""
        return 1
