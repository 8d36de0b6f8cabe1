"""A run goes on from a whole checkpoint, never from one that was cut short."""

import logging
import re
import shutil
import zipfile
from functools import partial
from itertools import count
from pathlib import Path

from mmpt_plugin.checkpoint import read_torch_file, write_whole

logger = logging.getLogger(__name__)

NAMES = re.compile(r"checkpoint(\d+|_\d+_\d+|_best|_last)\.pt")
LAST = "checkpoint_last.pt"


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
    write_whole(last, partial(shutil.copyfile, newest))
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
