"""Signals: handled immediately, even in a collective operation; and processes that Ctrl-C ends silently."""

import multiprocessing.context
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from multiprocessing import resource_tracker
from typing import Any


@contextmanager
def on_signals(
    numbers: Iterable[signal.Signals], call: Callable[[int], None], *, afterwards: Any = None
) -> Iterator[None]:
    """Context manager in which each of these signals runs `call(number)` in a separate thread.

    Python runs signal handlers only between two instructions of the main thread, so not while it waits for another
    rank. `afterwards` is the handler after the block; None restores the earlier handlers. Outside of the main thread,
    where Python allows no handlers, this does nothing.
    """
    numbers = tuple(numbers)
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    arrivals, wakeup = socket.socketpair()
    wakeup.setblocking(False)

    def listen() -> None:
        while number := arrivals.recv(1):
            if number[0] in numbers:
                call(number[0])

    before = {number: signal.signal(number, lambda *_: None) for number in numbers}
    wakeup_before = signal.set_wakeup_fd(wakeup.fileno(), warn_on_full_buffer=False)
    threading.Thread(target=listen, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(wakeup_before)
        for number, handler in before.items():
            signal.signal(number, handler if afterwards is None else afterwards)
        wakeup.close()


class WorkerProcess(multiprocessing.context.SpawnProcess):
    """A new interpreter that Ctrl-C ends without a traceback, even while it imports: the main process reports it."""

    def start(self) -> None:
        """Start the process with SIGINT blocked until `run`."""
        resource_tracker.ensure_running()  # started later, it would unblock SIGINT
        before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        try:
            super().start()
            if signal.SIGINT in signal.sigpending() and self.pid is not None:
                os.kill(self.pid, signal.SIGINT)  # it may have come before there was a process for it to reach
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, before)

    def run(self) -> None:
        """Let SIGINT, also one that has arrived already, end the process."""
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        super().run()


class WorkerContext(multiprocessing.context.SpawnContext):
    """The multiprocessing context of `WorkerProcess`, for a ProcessPoolExecutor."""

    Process = WorkerProcess  # type: ignore[assignment]
