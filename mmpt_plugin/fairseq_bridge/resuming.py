"""A run goes on from its newest whole checkpoint, never from one that was cut short."""

import logging
import re
import shutil
import zipfile
from functools import partial
from pathlib import Path

from mmpt_plugin.checkpoint import write_whole

logger = logging.getLogger(__name__)

NAMES = re.compile(r"checkpoint(\d+|_\d+_\d+|_best|_last)\.pt")
LAST = "checkpoint_last.pt"


def mend_last_checkpoint(folder: Path) -> Path | None:
    """Makes checkpoint_last.pt, which fairseq resumes from, the newest whole checkpoint; None where there is none.

    fairseq writes one file of a save and copies it to the others: a full disk or a kill can leave the copy, which is
    the last checkpoint as a rule, cut short. Half-written files are removed, damaged ones set aside.
    """
    for leftover in [*folder.glob("checkpoint*.pt.tmp"), *folder.glob(".checkpoint*.tmp")]:
        leftover.unlink()
    candidates = [path for path in folder.glob("checkpoint*.pt") if NAMES.fullmatch(path.name)]
    for path in sorted(candidates, key=lambda path: (path.stat().st_mtime_ns, path.name == LAST), reverse=True):
        problem = damage(path)
        if problem is None:
            if path.name != LAST:
                logger.warning("resuming from %s, the newest whole checkpoint", path)
                write_whole(folder / LAST, partial(shutil.copyfile, path))
            return folder / LAST
        aside = path.with_suffix(".damaged")
        logger.warning("%s is damaged (%s) and set aside as %s", path, problem, aside.name)
        path.replace(aside)
    return None


def damage(path: Path) -> str | None:
    """What is wrong with a torch file: its directory stands at its end, and every part has a checksum."""
    try:
        with zipfile.ZipFile(path) as file:
            broken = file.testzip()
    except (zipfile.BadZipFile, OSError) as error:
        return str(error)
    return f"checksum of {broken}" if broken else None
