"""Read ahead in threads: decoding is slow, and FFmpeg and torch work at the same time."""

from collections import deque
from collections.abc import Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from itertools import count
from typing import TypeVar

T = TypeVar("T")


def run_ahead(items: Generator[T, None, None], *, ahead: int) -> Generator[T, None, None]:
    """The items of a generator, of which a thread computes the next `ahead` while the caller works with those it took.

    Only that thread runs the generator, and closes it. Closing this one waits for the item that is being computed.
    """
    with ThreadPoolExecutor(1, thread_name_prefix="ahead") as pool:
        try:
            with closing(in_order((pool.submit(next, items, None) for _ in count()), ahead=ahead)) as computed:
                for item in computed:
                    if item is None:
                        return
                    yield item
        finally:
            pool.submit(items.close)


def in_order(futures: Iterable[Future[T]], *, ahead: int) -> Generator[T, None, None]:
    """The results of futures, `ahead` more of which are submitted than were taken; closing cancels those not begun."""
    waiting: deque[Future[T]] = deque()
    try:
        for future in futures:
            waiting.append(future)
            if len(waiting) > ahead:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        for future in waiting:
            future.cancel()
