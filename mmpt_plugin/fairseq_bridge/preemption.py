"""Stopping a training at a step boundary, and resuming it from a whole checkpoint.

fairseq has no way to be asked to stop. Each rank adds a stop flag to the logging output of its next step (`add_to`),
which fairseq sums over the ranks anyway. So all ranks learn of a request after the same update (`agree`), with no extra
communication, and save there (`stops_at_step_boundaries`). The next start resumes from the newest whole checkpoint
(`mend_last_checkpoint`).
"""

import logging
import os
import re
import shutil
import signal
import time
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import Any

import fairseq_cli.train
from fairseq import checkpoint_utils

from mmpt_plugin.checkpoint import read_torch_file
from mmpt_plugin.files import atomic_write
from mmpt_plugin.signals import on_signals

logger = logging.getLogger(__name__)

LOG_KEY = "stop_requested"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
AT_ONCE_AFTER = 1.0  # seconds; the same Ctrl-C reaches a process more than once, through its loader's workers

NAMES = re.compile(r"checkpoint(\d+|_\d+_\d+|_best|_last)\.pt")
LAST = "checkpoint_last.pt"


@dataclass
class Stop:
    requested: bool = False
    """By this process, for example by a signal handler."""
    agreed: bool = False
    """All ranks know of a request, and end after the current update."""


_stop = Stop()  # of this process's training; fairseq builds the criterion and the task that share it


def reset() -> None:
    """Forget earlier requests, at the start of a training."""
    _stop.requested = _stop.agreed = False


def request() -> None:
    """Ask this process's training to save and end after the current update, on all ranks."""
    _stop.requested = True


def is_requested() -> bool:
    return _stop.requested


def was_stopped() -> bool:
    """Whether all ranks have agreed to end before the end of training."""
    return _stop.agreed


def add_to(log: dict[str, Any]) -> None:
    """Put this rank's flag into a training step's logging output."""
    log[LOG_KEY] = int(_stop.requested)


def agree(logs: Sequence[dict[str, Any]]) -> None:
    """Read the flags out of the logging outputs that fairseq has summed over all ranks."""
    _stop.agreed |= any(log.get(LOG_KEY, 0) > 0 for log in logs)


@contextmanager
def stops_on_signals() -> Iterator[None]:
    """Within, a signal is a request to stop; SIGINT or SIGTERM again ends the process at once."""
    reset()
    first = 0.0

    def receive(number: int) -> None:
        nonlocal first
        now = time.monotonic()
        if not is_requested():
            first = now
            request()
            logger.warning("%s: saving after this update; again to end at once", signal.Signals(number).name)
        elif number != signal.SIGUSR2 and now - first > AT_ONCE_AFTER:
            logger.warning("ended at once, without a checkpoint of this moment")
            logging.shutdown()
            os._exit(128 + number)

    with on_signals(STOP_SIGNALS, receive):
        yield


@contextmanager
def stops_at_step_boundaries() -> Iterator[None]:
    """Within, fairseq's training loop saves and ends once all ranks have agreed.

    It also saves before each validation, which may take longer than the job has left.
    """
    original, original_validate = fairseq_cli.train.validate_and_save, fairseq_cli.train.validate

    def validate(cfg: Any, trainer: Any, task: Any, epoch_itr: Any, subsets: list[str]) -> Any:
        checkpoint_utils.save_checkpoint(cfg.checkpoint, trainer, epoch_itr, None)
        return original_validate(cfg, trainer, task, epoch_itr, subsets)

    def validate_and_save(
        cfg: Any, trainer: Any, task: Any, epoch_itr: Any, valid_subsets: Any, end_of_epoch: bool
    ) -> tuple[list[Any], bool]:
        arguments = (cfg, trainer, task, epoch_itr, valid_subsets, end_of_epoch)
        if not was_stopped():
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


def mend_last_checkpoint(folder: Path) -> Path | None:
    """Makes sure that checkpoint_last.pt, which fairseq resumes from, is whole; None where nothing whole is there.

    fairseq writes one file of a save and copies it to the others: a full disk or a kill can leave the copy, which is
    the last checkpoint as a rule, cut short. A whole last checkpoint stays as it is. In place of a damaged or missing
    one comes the whole checkpoint of the most updates, whatever the files' times say. Half-written files are removed,
    damaged ones are set aside; nothing is overwritten.
    """
    for leftover in [*folder.glob("checkpoint*.pt.tmp"), *folder.glob(".checkpoint*.tmp")]:
        leftover.unlink()
    last = folder / LAST
    if last.exists() and is_whole(last):
        return last
    candidates = sorted(path for path in folder.glob("checkpoint*.pt") if NAMES.fullmatch(path.name))
    whole = {path: num_updates(path) for path in candidates if is_whole(path)}
    if not whole:
        return None
    newest = max(whole, key=lambda path: whole[path])
    logger.warning("resuming from %s, the whole checkpoint of the most updates, %d", newest, whole[newest])
    atomic_write(last, partial(shutil.copyfile, newest))
    return last


def is_whole(path: Path) -> bool:
    """Whether a checkpoint is; one that is damaged is set aside under a new name."""
    problem = damage(path)
    if problem is not None:
        possible = (path.with_suffix(f".damaged{'' if number == 1 else number}") for number in count(1))
        aside = next(name for name in possible if not name.exists())
        logger.warning("%s is damaged (%s) and set aside as %s", path, problem, aside.name)
        path.replace(aside)
    return problem is None


def num_updates(path: Path) -> int:
    """Of the training that a whole checkpoint is from; -1 where it does not say."""
    try:
        return int(read_torch_file(path, mmap=True)["optimizer_history"][-1]["num_updates"])
    except (ValueError, KeyError, IndexError, TypeError):
        return -1


def damage(path: Path) -> str | None:
    """What is wrong with a torch file: its directory is at its end, and every part has a checksum."""
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        return str(error)
    return f"checksum of {broken}" if broken else None
