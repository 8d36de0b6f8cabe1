"""The locks of `Collection.index`, on files in the collection's folder. Buckets and servers have none."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from mmpt_plugin.files import locked

LOCK = "index.lock"


@contextmanager
def indexing(url: str) -> Iterator[None]:
    """Say, for `is_indexing`, that this process indexes; several processes may."""
    with lock_of(url, LOCK, fcntl.LOCK_SH):
        yield


@contextmanager
def alone(url: str) -> Iterator[None]:
    """Wait until no other process on this machine is in a block of this kind."""
    with lock_of(url, "roots.lock", fcntl.LOCK_EX):
        yield


def lock_of(url: str, name: str, kind: int) -> AbstractContextManager[object]:
    """A lock of this kind on a file of the collection."""
    return nullcontext() if "://" in url else locked(Path(url).expanduser() / name, kind)


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
