"""Signals heard at once, also by a process that waits in a collective operation."""

import signal
import socket
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any


@contextmanager
def on_signals(
    numbers: Iterable[signal.Signals], call: Callable[[int], None], *, afterwards: Any = None
) -> Iterator[None]:
    """Within, `call(number)` runs in a thread of its own for each of these signals that arrives.

    Python runs handlers between two instructions of the main thread only, which is none while that waits for another
    rank. `afterwards` handles the signals from then on; None restores what handled them before. Outside of the main
    thread, where Python allows no handlers, nothing changes.
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
