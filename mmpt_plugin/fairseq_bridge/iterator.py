"""fairseq's epoch iterator, for runs that resume within an epoch with other batches or on other processes."""

import logging
from typing import Any

from fairseq.data.iterators import EpochBatchIterator

logger = logging.getLogger(__name__)


class ClusterIterator(EpochBatchIterator):
    """Counts what an epoch has shown in clusters of all processes; fairseq counts the batches of each."""

    @property
    def clusters_at_once(self) -> int:
        """Of one batch of every process."""
        return int(self.num_shards) * self.batch_size

    @property
    def batch_size(self) -> int:
        return max(map(len, self.frozen_batches), default=1)

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().state_dict()
        at_once = self.clusters_at_once
        return state | {"clusters_at_once": at_once, "clusters_shown": state["iterations_in_epoch"] * at_once}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """The clusters that were shown are skipped, as far as they are whole batches of all processes now."""
        now = self.clusters_at_once
        earlier = state_dict.get("num_shards", int(self.num_shards)) * self.batch_size  # as older checkpoints have it
        before = state_dict.get("clusters_at_once", earlier)
        shown = state_dict.get("clusters_shown", state_dict["iterations_in_epoch"] * before)
        last = len(self.frozen_batches) // self.num_shards - 1  # an epoch that was left in its middle has one to go
        skipped = min(shown // now, max(last, 0))
        again = shown - skipped * now
        if now != before or again:
            logger.warning(
                "resumed with %d clusters in a batch of all processes instead of %d: of the %d clusters that epoch %d "
                "has shown, %d come again", now, before, shown, state_dict["epoch"], again,
            )  # fmt: skip
        super().load_state_dict(state_dict | {"iterations_in_epoch": skipped})
