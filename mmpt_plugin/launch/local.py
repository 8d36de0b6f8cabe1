"""`python -m mmpt_plugin.launch.local N FOLDER`: controls a local job, of which at most N run at the same time."""

import contextlib
import fcntl
import os
import shlex
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from submitit.local.local import Controller

MODULE = "mmpt_plugin.launch.local"


def controller_line(setup: Sequence[str], num_slots: int, folder: Path) -> str:
    """The shell line that becomes the controller, after the profile's own lines.

    submitit starts its own controller as a child of a shell, which a signal to the job would not reach.
    """
    controller = shlex.join([sys.executable, "-m", MODULE, str(num_slots), str(folder)])
    return shlex.join(["exec", "bash", "-c", "\n".join([*setup, f"exec {controller}"])])


@contextlib.contextmanager
def slot(folder: Path, num_slots: int) -> Iterator[None]:
    """Wait until fewer than `num_slots` processes are in this block, in any process with the same folder."""
    with contextlib.ExitStack() as files:
        slots = [files.enter_context((folder / f".slot-{number}").open("w")) for number in range(num_slots)]
        while not any(map(is_free, slots)):
            time.sleep(0.5)
        yield


def is_free(file: object) -> bool:
    """Whether this process now has the file's lock, which ends with the process."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)  # type: ignore[arg-type]
    except BlockingIOError:
        return False
    return True


if __name__ == "__main__":
    os.setsid()  # Ctrl-C in the terminal doesn't end the job
    os.environ["SUBMITIT_LOCAL_WITH_SHELL"] = ""  # the job's number is that of this process
    with slot(Path(sys.argv[2]), int(sys.argv[1])):
        Controller(Path(sys.argv[2])).run()
