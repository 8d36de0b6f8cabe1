"""Functions that several processes run together, as ranks of a training."""

import multiprocessing
from collections.abc import Callable
from typing import Any

from torch.multiprocessing import start_processes

from tests.warm import PRELOADED

START = "forkserver"  # which imports what takes long once, not once for each rank
multiprocessing.set_forkserver_preload(list(PRELOADED))


def on_ranks(function: Callable[..., Any], size: int, *arguments: Any) -> None:
    """Run `function(rank, *arguments)` in a process for each rank; an error of one of them is raised."""
    start_processes(function, arguments, nprocs=size, start_method=START)
