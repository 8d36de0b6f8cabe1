"""Stop training at a step boundary, and resume it from an intact checkpoint.

fairseq has no API to request a stop. Each rank adds a stop flag to the logging output of its next step (`add_to`),
which fairseq already sums over the ranks. So all ranks see a request after the same update (`agree`), with no extra
communication, and save there (`stops_at_step_boundaries`). The next start resumes from the newest intact checkpoint
(`repair_last_checkpoint`).
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

from mmpt_plugin.checkpoint import check_archive, read_torch_file
from mmpt_plugin.files import atomic_write, remove_leftovers
from mmpt_plugin.signals import on_signals

logger = logging.getLogger(__name__)

LOG_KEY = "stop_requested"
STOP_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)
SECOND_SIGNAL_AFTER = 1.0  # seconds; one Ctrl-C may reach a process several times, through its loader workers

NAMES = re.compile(r"checkpoint(\d+|_\d+_\d+|_best|_last)\.pt")
LAST = "checkpoint_last.pt"


@dataclass
class Stop:
    """The state of a stop, which one process requests and all ranks must agree on."""

    requested: bool = False
    """Requested in this process, for example by a signal handler."""
    agreed: bool = False
    """All ranks have seen a request and end after the current update."""


_stop = Stop()  # global, because fairseq builds the criterion and the task that share it


def reset() -> None:
    """Clear earlier requests, at the start of a training."""
    _stop.requested = _stop.agreed = False


def request() -> None:
    """Request that training saves and ends after the current update, on all ranks."""
    _stop.requested = True


def is_requested() -> bool:
    """Whether this process has requested a stop; the other ranks may not know of it yet."""
    return _stop.requested


def was_stopped() -> bool:
    """Whether all ranks have agreed to end before the end of training."""
    return _stop.agreed


def add_to(log: dict[str, Any]) -> None:
    """Add this rank's stop flag to the logging output of a training step."""
    log[LOG_KEY] = int(_stop.requested)


def agree(logs: Sequence[dict[str, Any]]) -> None:
    """Read the stop flags from the logging outputs that fairseq has summed over all ranks."""
    _stop.agreed |= any(log.get(LOG_KEY, 0) > 0 for log in logs)


@contextmanager
def stops_on_signals() -> Iterator[None]:
    """Context manager in which a signal requests a stop; a second SIGINT or SIGTERM ends the process immediately."""
    reset()
    first = 0.0

    def receive(number: int) -> None:
        nonlocal first
        now = time.monotonic()
        if not is_requested():
            first = now
            request()
            logger.warning(
                "%s: saving after this update; repeat the signal to end immediately", signal.Signals(number).name
            )
        elif number != signal.SIGUSR2 and now - first > SECOND_SIGNAL_AFTER:
            logger.warning("ended immediately, without a new checkpoint")
            logging.shutdown()
            os._exit(128 + number)

    with on_signals(STOP_SIGNALS, receive):
        yield


@contextmanager
def stops_at_step_boundaries() -> Iterator[None]:
    """Context manager in which fairseq's training loop saves and ends once all ranks have agreed.

    The loop also saves before each validation, which may take longer than the time left for the job.
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
        # Save first, because there may be no time left for the validation of the epoch.
        checkpoint_utils.save_checkpoint(cfg.checkpoint, trainer, epoch_itr, None)
        return (original(*arguments)[0] if end_of_epoch else [None]), True

    fairseq_cli.train.validate_and_save, fairseq_cli.train.validate = validate_and_save, validate
    try:
        yield
    finally:
        fairseq_cli.train.validate_and_save, fairseq_cli.train.validate = original, original_validate


def repair_last_checkpoint(folder: Path) -> Path | None:
    """Ensure that checkpoint_last.pt, which fairseq resumes from, is intact; None if no checkpoint is intact.

    fairseq-train writes one file per save and copies it to the others, so a full disk or a kill can truncate the copy,
    which usually is checkpoint_last.pt. An intact checkpoint_last.pt is kept. A damaged or missing one is replaced by
    the intact checkpoint with the most updates, regardless of file times. Partial files are removed, and damaged files
    renamed; nothing is overwritten.
    """
    for leftover in folder.glob("checkpoint*.pt.tmp"):  # of fairseq-train
        leftover.unlink()
    remove_leftovers(folder)
    last = folder / LAST
    if last.exists() and is_intact(last):
        return last
    candidates = sorted(path for path in folder.glob("checkpoint*.pt") if NAMES.fullmatch(path.name))
    whole = {path: num_updates(path) for path in candidates if is_intact(path)}
    if not whole:
        return None
    newest = max(whole, key=lambda path: whole[path])
    logger.warning("resuming from %s, the intact checkpoint with the most updates, %d", newest, whole[newest])
    atomic_write(last, partial(shutil.copyfile, newest))
    return last


def is_intact(path: Path) -> bool:
    """Whether a checkpoint is intact; a damaged checkpoint is renamed."""
    problem = damage(path)
    if problem is not None:
        possible = (path.with_suffix(f".damaged{'' if number == 1 else number}") for number in count(1))
        aside = next(name for name in possible if not name.exists())
        logger.warning("%s is damaged (%s) and was renamed to %s", path, problem, aside.name)
        path.replace(aside)
    return problem is None


def num_updates(path: Path) -> int:
    """The number of updates of an intact checkpoint; -1 if it is not recorded."""
    try:
        return int(read_torch_file(path, mmap=True)["optimizer_history"][-1]["num_updates"])
    except (ValueError, KeyError, IndexError, TypeError):
        return -1


def damage(path: Path) -> str | None:
    """What is wrong with a torch file, which is a zip file with a checksum for each part; None if it is intact."""
    try:
        if not zipfile.is_zipfile(path):
            return "not a zip file"
        check_archive(path)
    except (zipfile.BadZipFile, OSError) as error:
        return str(error)
    return None
