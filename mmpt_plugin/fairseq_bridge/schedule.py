"""The number of updates in a training, and learning-rate schedules that end with it."""

import logging
import math
from collections.abc import Sequence
from typing import Any

from omegaconf import open_dict

logger = logging.getLogger(__name__)

TOLERANCE = 0.01  # relative difference between schedule and training length that gives no warning


def total_updates(
    num_clusters: int, *, batch_size: int, world_size: int, update_freq: Sequence[int], max_epoch: int, max_update: int
) -> int:
    """Updates of all epochs, or max_update if that is less; 0 if neither limits the training.

    `update_freq` has one value per epoch; the last one applies to all later epochs.
    """
    batches = math.ceil(num_clusters / (batch_size * world_size))  # of each process
    epochs = [math.ceil(batches / update_freq[min(epoch, len(update_freq) - 1)]) for epoch in range(max_epoch)]
    return min((limit for limit in (sum(epochs), max_update) if limit > 0), default=0)


def fit_schedule(schedule: Any, total: int, *, warmup_fraction: float) -> None:
    """Fill in the schedule's length, if it is not set, and its warm-up, if warmup_fraction is set.

    A length that is set is kept, with a warning if it differs from the training's. Schedules without a length are not
    changed.
    """
    with open_dict(schedule):
        if warmup_fraction:
            if schedule.get("warmup_updates"):
                raise ValueError("lr_scheduler has both warmup_updates and warmup_fraction: set only one of them")
            schedule.warmup_updates = max(1, round(warmup_fraction * known(total)))
        warmup = int(schedule.get("warmup_updates") or 0)
        match schedule._name:
            case "polynomial_decay":
                key, first, given = "total_num_update", 0, schedule.get("total_num_update")
            case "cosine":
                key, first, given = "lr_period_updates", warmup, schedule.get("lr_period_updates")
            case _:
                return
        if not given or given <= 0:
            if known(total) <= warmup:
                logger.warning(
                    "training has %d updates, so it ends within the %d of lr_scheduler.warmup_updates", total, warmup
                )
            schedule[key] = max(total - first, 1)
        elif total and abs(given + first - total) > TOLERANCE * total:
            logger.warning(
                "the learning-rate schedule ends at update %d (lr_scheduler.%s), but training ends at update %d; "
                "remove that key to end both together", given + first, key, total,
            )  # fmt: skip


def known(total: int) -> int:
    """Return the number of updates; ValueError if it is 0, which means unknown."""
    if total == 0:
        raise ValueError(
            "the number of updates is unknown: set optimization.max_epoch or max_update, or the length of the "
            "schedule (lr_scheduler.total_num_update, or lr_period_updates for cosine)"
        )
    return total
