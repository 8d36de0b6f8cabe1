"""fairseq's epoch iterator, for runs that resume within an epoch with another batch size or number of processes."""

import logging
from typing import Any

from fairseq.data.iterators import EpochBatchIterator

logger = logging.getLogger(__name__)


class ClusterIterator(EpochBatchIterator):
    """Counts progress in clusters of all processes; fairseq counts batches of each process."""

    @property
    def clusters_per_step(self) -> int:
        """Clusters in one batch of every process together."""
        return int(self.num_shards) * self.batch_size

    @property
    def batch_size(self) -> int:
        """Clusters in the largest batch of one process."""
        return max(map(len, self.frozen_batches), default=1)

    def state_dict(self) -> dict[str, Any]:
        """Also store the clusters per step and shown so far, to resume with other batches."""
        state: dict[str, Any] = super().state_dict()
        clusters = self.clusters_per_step
        return state | {"clusters_at_once": clusters, "clusters_shown": state["iterations_in_epoch"] * clusters}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Skip the clusters already shown, rounded down to whole batches of all processes."""
        now = self.clusters_per_step
        earlier = state_dict.get("num_shards", int(self.num_shards)) * self.batch_size  # for older checkpoints
        before = state_dict.get("clusters_at_once", earlier)
        shown = state_dict.get("clusters_shown", state_dict["iterations_in_epoch"] * before)
        last = len(self.frozen_batches) // self.num_shards - 1  # an unfinished epoch has at least one batch left
        skipped = min(shown // now, max(last, 0))
        again = shown - skipped * now
        if now != before or again:
            logger.warning(
                "resumed with %d clusters in a batch of all processes instead of %d: of the %d clusters already shown "
                "in epoch %d, %d are repeated", now, before, shown, state_dict["epoch"], again,
            )  # fmt: skip
        super().load_state_dict(state_dict | {"iterations_in_epoch": skipped})
