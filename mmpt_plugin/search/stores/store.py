"""What all stores have in common: the types they exchange, and the store of a URL.

N windows, D width of the vectors.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jaxtyping import Float

from mmpt_plugin import registry
from mmpt_plugin.errors import shortened
from mmpt_plugin.files import parse_json

if TYPE_CHECKING:
    from mmpt_plugin.protocols import Store


@dataclass(kw_only=True)
class StoreConfig:
    """Where a collection is."""

    url: str = ""
    """A folder or a URL, in the form that the store documents."""


@dataclass(frozen=True)
class StoredVideo:
    """What a collection records about a video file when it indexes it."""

    root: str
    """The folder under which it was indexed; the video's id is the folder's name and the path below the folder."""
    size: int
    """Bytes of the file."""
    modified: int
    """Time of the last change in nanoseconds, as in `os.stat_result.st_mtime_ns`."""
    content: str
    """SHA-256 of the file."""
    duration: float
    """Seconds."""

    def path(self, video: str) -> Path:
        """The file of the video with this id."""
        return file_of(video, self.root)


@dataclass(frozen=True)
class Windows:
    """The windows of one video, in order, and their vectors."""

    starts: Float[np.ndarray, " N"]
    """Seconds."""
    ends: Float[np.ndarray, " N"]
    vectors: Float[np.ndarray, "N D"]


@dataclass(frozen=True)
class Hit:
    """A window and its dot product with the vector that was searched for."""

    video: str
    root: str
    start: float
    end: float
    score: float

    @property
    def path(self) -> Path:
        """The video file."""
        return file_of(self.video, self.root)


@dataclass(frozen=True)
class Where:
    """Which windows a search may return."""

    prefixes: tuple[str, ...] = ()
    """Beginnings of video ids, of which one must match; empty allows all."""
    min_duration: float | None = None
    """Shortest video, in seconds."""
    max_duration: float | None = None
    """Longest video, in seconds."""


def file_of(video: str, root: str) -> Path:
    """The file of a video, whose id is the name of the root and the path below it."""
    return Path(root) / video.partition("/")[2]


def store_of(url: str) -> "Store":
    """The store of a URL: `NAME+REST` is the registered store NAME, anything else is `lance`, a folder or s3://."""
    name, plus, _ = url.partition("+")
    scheme = bool(plus) and name in registry.stores
    built: Store = registry.stores.build({"_name": name if scheme else "lance", "url": url})
    return built


def settings_of(text: str, url: str) -> dict[str, Any]:
    """The settings that a collection stores as JSON; ValueError if they are not an object."""
    settings = parse_json(text, f"{url}: its settings", names_of_files=True)
    if not isinstance(settings, dict):
        raise ValueError(f"{url}: its settings must be an object, got {shortened(settings)}")
    return settings
