"""The number of updates in a training, and learning-rate schedules that end with it."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, List  # noqa: UP035 - fairseq does not support list[float]

from fairseq.dataclass import FairseqDataclass
from fairseq.optim.lr_scheduler import FairseqLRScheduler, register_lr_scheduler
from omegaconf import II, open_dict

logger = logging.getLogger(__name__)

TOLERANCE = 0.01  # relative difference between schedule and training length that gives no warning


def total_updates(
    num_clusters: int, *, batch_size: int, world_size: int, update_freq: Sequence[int], max_epoch: int, max_update: int
) -> int:
    """Updates of all epochs, or max_update if that is less; 0 if neither limits the training.

    `update_freq` has one value per epoch; the last one applies to all later epochs.
    """
    batches = math.ceil(num_clusters / (batch_size * world_size))  # of each process
    first = [math.ceil(batches / frequency) for frequency in update_freq[:max_epoch]]
    later = max(0, max_epoch - len(first)) * math.ceil(batches / update_freq[-1])
    return min((limit for limit in (sum(first) + later, max_update) if limit > 0), default=0)


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
            case "polynomial_decay" | "warmup_cosine":
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


@dataclass
class WarmupCosineConfig(FairseqDataclass):
    """A linear warm-up and a cosine over the whole run."""

    warmup_updates: int = field(
        default=0, metadata={"help": "number of updates in which the rate rises linearly from 0"}
    )
    total_num_update: int = field(
        default=0, metadata={"help": "number of updates after which the rate is 0; by default those of the training"}
    )
    lr: List[float] = field(default=II("optimization.lr"))  # noqa: UP006


@register_lr_scheduler("warmup_cosine", dataclass=WarmupCosineConfig)
class WarmupCosine(FairseqLRScheduler):
    """The learning rate of CLIP4Clip. fairseq's `cosine` begins the cosine after the warm-up, at the full rate.

    As there, update n has the rate that belongs to n - 1 updates: the first update has rate 0, and only Adam's averages
    change; the rate would be 0 again after the last.
    """

    def __init__(self, config: Any, optimizer: Any) -> None:
        super().__init__(config, optimizer)
        if config.total_num_update <= 0:
            raise ValueError(f"lr_scheduler.total_num_update must be positive, got {config.total_num_update}")
        if len(config.lr) > 1:
            raise ValueError(f"lr_scheduler warmup_cosine needs one optimization.lr, got {list(config.lr)}")
        self.step_update(0)

    def step_update(self, num_updates: int) -> float:
        """Set and return the rate of the update that follows `num_updates` others."""
        share = warmup_cosine(num_updates, warmup=self.cfg.warmup_updates, total=self.cfg.total_num_update)
        rate: float = self.cfg.lr[0] * share
        self.optimizer.set_lr(rate)
        return rate


def warmup_cosine(num_updates: int, *, warmup: int, total: int) -> float:
    """The share of the peak learning rate after this many of `total` updates.

    It rises linearly during the warm-up; after it, it is the cosine of the whole run: 0.976 after a tenth of the run,
    0 at the end.
    """
    if num_updates < warmup:
        return num_updates / warmup
    return (1 + math.cos(math.pi * min(num_updates / total, 1))) / 2
