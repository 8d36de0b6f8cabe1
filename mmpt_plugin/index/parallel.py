"""Many small chunks of work in parallel, each on one core, so cores do not wait for each other within a chunk."""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch


def in_parallel(work: Callable[..., None], chunks: Iterable[tuple[Any, ...]]) -> None:
    """Call `work(*chunk)` for all chunks, on as many threads as torch uses for one operation."""
    threads = torch.get_num_threads()
    if threads == 1:
        for chunk in chunks:
            work(*chunk)
        return
    try:
        with ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
            for done in [pool.submit(work, *chunk) for chunk in chunks]:
                done.result()
    finally:
        torch.set_num_threads(threads)
