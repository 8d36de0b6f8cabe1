"""fairseq's epoch iterator, for runs that resume within an epoch on another number of processes."""

import logging
from typing import Any

from fairseq.data.iterators import EpochBatchIterator

logger = logging.getLogger(__name__)


class ClusterIterator(EpochBatchIterator):
    """Counts what an epoch has shown in batches of all processes; fairseq counts those of each."""

    def state_dict(self) -> dict[str, Any]:
        state: dict[str, Any] = super().state_dict()
        return state | {"num_shards": self.num_shards}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        was = state_dict.get("num_shards", self.num_shards)
        shown = state_dict["iterations_in_epoch"] * was
        if was != self.num_shards:
            logger.warning(
                "resumed on %d processes instead of %d: an update has %d batches instead of %d, times update_freq; "
                "of the %d batches that epoch %d has shown, %d come again",
                self.num_shards, was, self.num_shards, was, shown, state_dict["epoch"], shown % self.num_shards,
            )  # fmt: skip
        super().load_state_dict(state_dict | {"iterations_in_epoch": shown // self.num_shards})
