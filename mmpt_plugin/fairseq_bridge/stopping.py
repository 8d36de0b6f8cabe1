"""Ending a run at the next step boundary, all ranks at the same one, with a checkpoint.

fairseq knows no way to be asked. Each rank says in the logging output of its next step whether it was asked, fairseq
sums those over the ranks, so that all of them learn it after the same update, at no extra communication.
"""

import logging
import os
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import fairseq_cli.train
from fairseq import checkpoint_utils

from mmpt_plugin.signals import on_signals

logger = logging.getLogger(__name__)

LOG_KEY = "stop_requested"


@dataclass
class Stop:
    requested: bool = False
    """Of this process, by whoever wants it to end: a signal handler."""
    agreed: bool = False
    """All ranks know, and end after the current update."""


stop = Stop()

STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
AT_ONCE_AFTER = 1.0  # seconds; the same Ctrl-C reaches a process more than once, through its loader's workers


@contextmanager
def stops_on_signals() -> Iterator[None]:
    """Within, a signal is a request to stop; SIGINT or SIGTERM again ends the process at once."""
    stop.requested = stop.agreed = False
    first = 0.0

    def request(number: int) -> None:
        nonlocal first
        now = time.monotonic()
        if not stop.requested:
            first, stop.requested = now, True
            logger.warning("%s: saving after this update; again to end at once", signal.Signals(number).name)
        elif number != signal.SIGUSR2 and now - first > AT_ONCE_AFTER:
            logger.warning("ended at once, without a checkpoint of this moment")
            logging.shutdown()
            os._exit(128 + number)

    with on_signals(STOP_SIGNALS, request):
        yield


@contextmanager
def stops_at_step_boundaries() -> Iterator[None]:
    """Within, fairseq's training loop saves and ends once `stop` is agreed, and saves before each validation, which may
    take longer than there is time."""
    original, original_validate = fairseq_cli.train.validate_and_save, fairseq_cli.train.validate

    def validate(cfg: Any, trainer: Any, task: Any, epoch_itr: Any, subsets: list[str]) -> Any:
        checkpoint_utils.save_checkpoint(cfg.checkpoint, trainer, epoch_itr, None)
        return original_validate(cfg, trainer, task, epoch_itr, subsets)

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

    fairseq_cli.train.validate_and_save, fairseq_cli.train.validate = validate_and_save, validate
    try:
        yield
    finally:
        fairseq_cli.train.validate_and_save, fairseq_cli.train.validate = original, original_validate
