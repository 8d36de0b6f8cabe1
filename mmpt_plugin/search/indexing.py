"""The locks of `Collection.index`, on files in the collection's folder. Buckets and servers have none."""

import fcntl
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

LOCK = "index.lock"


@contextmanager
def indexing(url: str) -> Iterator[None]:
    """Say, for `is_indexing`, that this process indexes; several processes may."""
    with locked(url, LOCK, fcntl.LOCK_SH):
        yield


@contextmanager
def alone(url: str) -> Iterator[None]:
    """Wait until no other process on this machine is in a block of this kind."""
    with locked(url, "roots.lock", fcntl.LOCK_EX):
        yield


@contextmanager
def locked(url: str, name: str, kind: int) -> Iterator[None]:
    """Hold a lock of this kind on a file of the collection."""
    if "://" in url:
        yield
        return
    with (Path(url).expanduser() / name).open("a") as file:
        fcntl.flock(file, kind)
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
