"""Many small pieces of work on all cores, a piece a core: no core waits for the others within a piece."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def in_parallel(work: Callable[..., None], pieces: Iterable[tuple[Any, ...]]) -> None:
    """`work(*piece)` for all pieces, on as many threads as torch would use for one."""
    threads = torch.get_num_threads()
    if threads == 1:
        for piece in pieces:
            work(*piece)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for done in [pool.submit(work, *piece) for piece in pieces]:
                done.result()
    finally:
        torch.set_num_threads(threads)
