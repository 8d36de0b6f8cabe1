"""A collection as its page shows it: answers that JSON can hold, and the files that the page may read."""

import math
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from functools import lru_cache
from pathlib import Path
from typing import Any

from mmpt_plugin.models.embedding import sliding_windows
from mmpt_plugin.search.collection import Collection
from mmpt_plugin.search.indexing import is_indexing
from mmpt_plugin.search.moments import Moment
from mmpt_plugin.search.playable import played_as, strip
from mmpt_plugin.search.stores.store import StoredVideo

VIDEOS_SECONDS = 2.0  # how long the list of videos is kept
MOST_FOLDERS = 500  # in one answer
STRIPS_KEPT = 512  # about 20 MB


class UnknownVideo(LookupError):
    """A video that is not in the collection, or whose file is gone; the message is one line."""


class Catalog:
    """Answers about one collection, from any thread."""

    def __init__(self, collection: Collection) -> None:
        self.collection = collection
        self._videos: tuple[float, dict[str, StoredVideo]] | None = None

    def status(self) -> dict[str, Any]:
        """Numbers of videos and moments, the folders, and whether indexing is under way."""
        videos = self.videos()
        return {
            "collection": self.collection.url,
            "videos": len(videos),
            "moments": sum(map(self._num_moments, videos.values())),
            "seconds": sum(about.duration for about in videos.values()),
            "folders": folders(videos),
            "indexing": is_indexing(self.collection.url),
        }

    def search(self, sentence: str, k: int, **where: Any) -> list[dict[str, Any]]:
        """`Collection.search`; no moments for an empty collection."""
        return self._shown(self.collection.search(sentence, k, **where) if self.videos() else [])

    def similar(self, video: str, start: float, end: float, k: int, **where: Any) -> list[dict[str, Any]]:
        """`Collection.similar` to the moment in the middle between two seconds."""
        return self._shown(self.collection.similar(self._moment(video, start, end), k, **where))

    def classify(
        self, video: str, start: float, end: float, prompts: Mapping[str, Sequence[str]]
    ) -> list[dict[str, Any]]:
        """`Collection.classify` of the moment in the middle between two seconds."""
        scores = self.collection.classify(self._moment(video, start, end), prompts)
        return [{"label": label, "score": score} for label, score in scores.items()]

    def listed(
        self, *, folder: str | None, min_duration: float | None, max_duration: float | None
    ) -> list[dict[str, Any]]:
        """The videos that a filter allows."""
        shortest, longest = min_duration or 0.0, math.inf if max_duration is None else max_duration
        return [
            described(video, about)
            for video, about in self.videos().items()
            if shortest <= about.duration <= longest and (folder is None or video.startswith(f"{folder}/"))
        ]

    def video(self, video: str) -> dict[str, Any]:
        """A video, and whether browsers play its file."""
        plays = self.media_type(video) is not None
        return described(video, self.about(video)) | {"plays": plays}

    def media_type(self, video: str) -> str | None:
        """The media type of the video's file; None if browsers don't play it."""
        path = self.path(video)
        return kept_type(path, path.stat().st_mtime_ns)

    def strip(self, video: str, start: float, end: float) -> bytes:
        """The frames of a moment as JPEG."""
        path = self.path(video)
        return kept_strip(path, path.stat().st_mtime_ns, start, end)

    def path(self, video: str) -> Path:
        """The file of a video; UnknownVideo if it is not there."""
        path = self.about(video).path(video)
        if not path.is_file():
            raise UnknownVideo(f"{path} is no longer there: run mmpt index again")
        return path

    def about(self, video: str) -> StoredVideo:
        """The record of a video; UnknownVideo if the collection has none."""
        about = self.videos().get(video)
        if about is None:
            about = self.videos(fresh=True).get(video)
        if about is None:
            raise UnknownVideo(f"no video '{video[:200]}' in this collection")
        return about

    def videos(self, *, fresh: bool = False) -> dict[str, StoredVideo]:
        """All videos by id; the list is read again after VIDEOS_SECONDS, or if `fresh`."""
        now = time.monotonic()
        kept = self._videos
        if fresh or kept is None or now - kept[0] > VIDEOS_SECONDS:
            kept = self._videos = now, self.collection.videos()
        return kept[1]

    def _moment(self, video: str, start: float, end: float) -> Moment:
        self.about(video)  # for its error
        return self.collection.at(video, (start + end) / 2)

    def _num_moments(self, about: StoredVideo) -> int:
        settings = self.collection.settings
        return len(sliding_windows(math.ceil(about.duration), window=settings["window"], hop=settings["hop"]))

    def _shown(self, moments: Sequence[Moment]) -> list[dict[str, Any]]:
        videos = self.videos()
        if any(moment.video not in videos for moment in moments):
            videos = self.videos(fresh=True)
        return [
            described(moment.video, videos[moment.video])
            | {"start": moment.start, "end": moment.end, "score": moment.score, "strength": moment.strength}
            for moment in moments
            if moment.video in videos
        ]


def described(video: str, about: StoredVideo) -> dict[str, Any]:
    """A video: its id, file name, folder, seconds, and a version that changes with the file."""
    folder, _, name = video.rpartition("/")
    return {
        "video": video, "name": name, "folder": folder, "duration": about.duration, "version": str(about.modified),
    }  # fmt: skip


def folders(videos: Sequence[str] | Mapping[str, StoredVideo]) -> list[dict[str, Any]]:
    """All folders of videos and their parent folders with their numbers of videos; the first MOST_FOLDERS of them."""
    counts: Counter[str] = Counter()
    for video in videos:
        parts = video.split("/")[:-1]
        counts.update("/".join(parts[:depth]) for depth in range(1, len(parts) + 1))
    return [{"folder": folder, "videos": number} for folder, number in sorted(counts.items())[:MOST_FOLDERS]]


@lru_cache(4096)
def kept_type(path: Path, modified: int) -> str | None:
    """`played_as` of this version of a file."""
    return played_as(path)


@lru_cache(STRIPS_KEPT)
def kept_strip(path: Path, modified: int, start: float, end: float) -> bytes:
    """`strip` of this version of a file."""
    return strip(path, start, end)
