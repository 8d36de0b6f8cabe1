"""Whether a collection's folder is being indexed: `Collection.index` holds a shared lock on a file in it."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "index.lock"


@contextmanager
def indexing(url: str) -> Iterator[None]:
    """Hold the lock of a collection; several processes may hold it. Buckets and servers have none."""
    if "://" in url:
        yield
        return
    with (Path(url).expanduser() / LOCK).open("a") as file:
        fcntl.flock(file, fcntl.LOCK_SH)
        yield


def is_indexing(url: str) -> bool:
    """Whether a process on this machine indexes into the collection; False for buckets and servers."""
    path = Path(url).expanduser() / LOCK
    if "://" in url or not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
