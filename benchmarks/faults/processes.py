"""Processes that run `mmpt`, to be killed or to have failing writes.

A process is a fork of this one, which has imported the libraries, so that it takes a second instead of ten. `cold`
starts a new interpreter instead.
"""

import atexit
import ctypes
import logging
import multiprocessing.util
import os
import pickle
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

T = TypeVar("T")

TIMEOUT = 240.0
COLD = """
import sys
from benchmarks.faults.commands import small_commits
from mmpt_plugin.cli import main
small_commits()
sys.exit(main(sys.argv[1:]))
"""
SHIM = Path(__file__).with_name("shim.c")


def load_libraries() -> None:
    """Import what commands need, except LanceDB, which starts a thread that a fork would not have."""
    import mmpt_plugin.cli
    import mmpt_plugin.fairseq_bridge.train
    import mmpt_plugin.features.extract
    import mmpt_plugin.models.clip
    import mmpt_plugin.models.videoclip
    import mmpt_plugin.search
    import mmpt_plugin.shards.make
    import mmpt_plugin.tasks.project
    import mmpt_plugin.toy_kitchen
    import mmpt_plugin.video.cache_frames  # noqa: F401


def start(words: Sequence[str], log: Path, *, cold: bool = False, environment: Mapping[str, str] | None = None) -> int:
    """Start `mmpt` in a process group of its own, its output in a file; return the process id."""
    if cold:
        with log.open("wb") as file:
            return subprocess.Popen(
                [sys.executable, "-c", COLD, *words],
                stdin=subprocess.DEVNULL, stdout=file, stderr=file, start_new_session=True,
                env=os.environ | (environment or {}),
            ).pid  # fmt: skip
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])  # until `mmpt` runs
    pid = os.fork()
    if pid == 0:
        run_and_exit(words, log, environment or {})
    with suppress(PermissionError, ProcessLookupError):
        os.setpgid(pid, pid)  # as the process itself does, whichever comes first
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    return pid


def run_and_exit(words: Sequence[str], log: Path, environment: Mapping[str, str]) -> None:
    """Run `mmpt` in a forked process, as an interpreter of its own would, including its exit."""
    code = 1
    try:
        os.setpgid(0, 0)
        output = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(output, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        os.environ.update(environment)
        if environment:
            ctypes.CDLL(None).fault_arm()
        atexit._clear()
        sys.argv = ["mmpt", *words]
        code = exit_code(words)
        threading._shutdown()  # type: ignore[attr-defined]
        atexit._run_exitfuncs()
        multiprocessing.util._exit_function()  # type: ignore[attr-defined]
        logging.shutdown()
        for file in (sys.stdout, sys.stderr):
            file.flush()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        code = 1
    finally:
        os._exit(code)


def exit_code(words: Sequence[str]) -> int:
    """The status of the interpreter's exit after `mmpt`; an exception is printed as the interpreter prints it."""
    from mmpt_plugin.cli import main

    try:
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
    except KeyboardInterrupt:  # it came before `mmpt` began
        return 130
    try:
        return main(words)
    except SystemExit as error:
        return error.code if isinstance(error.code, int) else 1
    except KeyboardInterrupt:
        traceback.print_exc()
        return 130
    except BaseException:
        traceback.print_exc()
        return 1


def ended(pid: int, seconds: float = TIMEOUT) -> int | None:
    """The exit status of a process, negative after a signal; None if it still runs."""
    end = time.monotonic() + seconds
    while True:
        found, status = os.waitpid(pid, os.WNOHANG)
        if found:
            return os.waitstatus_to_exitcode(status)
        left = end - time.monotonic()
        if left <= 0:
            return None
        time.sleep(min(0.005, left))


def finish(pid: int) -> int:
    """Wait for a process, then end what is left of its group; a process that hangs is killed, and has status -9."""
    status = ended(pid)
    signal_group(pid, signal.SIGKILL)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) if status is None else status


def signal_group(pid: int, number: int) -> None:
    """Send a signal to a process group, which may have ended."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(pid, number)


def in_fork(function: Callable[..., T], *arguments: Any) -> T:
    """`function(*arguments)` in a fork, because it starts threads or imports LanceDB."""
    reader, writer = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            answer: Any = function(*arguments)
        except BaseException as error:
            answer = RuntimeError(f"{type(error).__name__}: {error}")
        with os.fdopen(writer, "wb") as file:
            pickle.dump(answer, file)
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as file:
        content = file.read()
    os.waitpid(pid, 0)
    answer = pickle.loads(content)  # of our own process
    if isinstance(answer, RuntimeError):
        raise answer
    return answer  # type: ignore[no-any-return]


def build_shim(folder: Path) -> Path:
    """Compile shim.c."""
    library = folder / "shim.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O1", "-o", library, SHIM, "-ldl"], check=True)
    return library
