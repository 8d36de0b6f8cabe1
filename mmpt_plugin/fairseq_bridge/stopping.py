"""Ending a run at the next step boundary, all ranks at the same one, with a checkpoint.

fairseq knows no way to be asked. Each rank says in the logging output of its next step whether it was asked, fairseq
sums those over the ranks, so that all of them learn it after the same update, at no extra communication.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fairseq_cli.train
from fairseq import checkpoint_utils

LOG_KEY = "stop_requested"


@dataclass
class Stop:
    requested: bool = False
    """Of this process, by whoever wants it to end: a signal handler."""
    agreed: bool = False
    """All ranks know, and end after the current update."""


stop = Stop()


@contextmanager
def stops_at_step_boundaries() -> Iterator[None]:
    """Within, fairseq's training loop saves and ends once `stop` is agreed."""
    original = fairseq_cli.train.validate_and_save

    def validate_and_save(
        cfg: Any, trainer: Any, task: Any, epoch_itr: Any, valid_subsets: Any, end_of_epoch: bool
    ) -> tuple[list[Any], bool]:
        arguments = (cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch)
        if not stop.agreed:
            losses, done = original(*arguments)
            return losses, done
        # First of all, for there may be no time left for the epoch's validation.
        checkpoint_utils.save_checkpoint(cfg.checkpoint, trainer, epoch_itr, None)
        return (original(*arguments)[0] if end_of_epoch else [None]), True

    fairseq_cli.train.validate_and_save = validate_and_save
    try:
        yield
    finally:
        fairseq_cli.train.validate_and_save = original
