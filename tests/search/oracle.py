"""A store in memory that compares with all rows, and the random operations that compare real stores with it."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from mmpt_plugin.protocols import Store
from mmpt_plugin.search.stores.store import Hit, StoredVideo, Where, Windows

WIDTH = 8
# Beginnings of each other, characters of SQL, LIKE and Milvus, and more than one alphabet.
FOLDERS = [
    "trips/",
    "trips/it's/",
    "trips/100%/",
    "trips/a_b/",
    "trips/axb/",
    'trips/"q"/',
    "trips/back\\n/",
    "café/日本/😀/",
]
NAMES = [f"{folder}{name}.mp4" for folder in FOLDERS for name in ("1", "2", "it's; DROP TABLE moments --")]


class Oracle:
    """A store that keeps videos in a dict."""

    def __init__(self) -> None:
        self.known: dict[str, tuple[StoredVideo, Windows]] = {}

    def replace(self, videos: Mapping[str, tuple[StoredVideo, Windows]]) -> None:
        self.known |= videos

    def remove(self, videos: Sequence[str]) -> None:
        self.known = {video: both for video, both in self.known.items() if video not in videos}

    def nearest(self, vector: np.ndarray, k: int, where: Where) -> list[Hit]:
        hits = []
        for video, (about, windows) in self.known.items():
            if where.prefixes and not video.startswith(where.prefixes):
                continue
            if not (where.min_duration or 0) <= about.duration <= (where.max_duration or np.inf):
                continue
            for start, end, score in zip(windows.starts, windows.ends, windows.vectors @ vector, strict=True):
                hits.append(Hit(video, about.root, float(start), float(end), float(score)))
        return sorted(hits, key=lambda hit: -hit.score)[:k]

    def rows(self, video: str) -> Windows:
        none = Windows(np.zeros(0), np.zeros(0), np.zeros((0, WIDTH), np.float32))
        return self.known[video][1] if video in self.known else none

    def videos(self) -> dict[str, StoredVideo]:
        return {video: about for video, (about, _) in sorted(self.known.items())}


def random_video(rng: np.random.Generator, *, num_windows: int | None = None) -> tuple[StoredVideo, Windows]:
    """A video of 1 to 9 windows, whose vectors have different lengths."""
    count = num_windows or int(rng.integers(1, 10))
    starts = np.arange(count) * 2.0
    vectors = rng.normal(size=(count, WIDTH)) * rng.uniform(3, 9, size=(count, 1))
    about = StoredVideo("/disk/videos", int(rng.integers(2**40)), int(rng.integers(2**62)), "0" * 64, 2.0 * count + 4.0)
    return about, Windows(starts, starts + 6.0, vectors.astype(np.float32))


def random_where(rng: np.random.Generator) -> Where:
    """A filter by folders, by duration, by both, or by nothing."""
    folders = rng.choice(FOLDERS, size=rng.integers(1, 3), replace=False).tolist() if rng.random() < 0.6 else []
    shortest = float(rng.integers(6, 20)) if rng.random() < 0.3 else None
    longest = float(rng.integers(10, 24)) if rng.random() < 0.3 else None
    return Where(tuple(folders), shortest, longest)


def run_operations(store: Store, rng: np.random.Generator, *, steps: int) -> None:
    """Random operations on a store and on an oracle; AssertionError for the first difference."""
    oracle = Oracle()
    for step in range(steps):
        kind = rng.choice(
            ["replace", "remove", "nearest", "rows", "videos", "compact"], p=[0.3, 0.1, 0.4, 0.1, 0.06, 0.04]
        )
        some = rng.choice(NAMES, size=rng.integers(1, 4), replace=False).tolist()
        if kind == "replace":
            videos = {video: random_video(rng) for video in some}
            store.replace(videos)
            oracle.replace(videos)
        elif kind == "remove":
            store.remove(some)
            oracle.remove(some)
        elif kind == "nearest":
            vector, k = rng.normal(size=WIDTH).astype(np.float32), int(rng.choice([1, 5, 20, 500]))
            where = random_where(rng)
            assert_equal_hits(
                store.nearest(vector, k, where), oracle.nearest(vector, k, where), f"step {step}: {where}"
            )
        elif kind == "rows":
            assert_equal_windows(store.rows(some[0]), oracle.rows(some[0]))
        elif kind == "videos":
            assert list(store.videos().items()) == list(oracle.videos().items()), f"step {step}"
        else:
            store.compact()
    assert store.videos() == oracle.videos()
    for video in NAMES:
        assert_equal_windows(store.rows(video), oracle.rows(video))


def assert_equal_hits(found: Sequence[Hit], expected: Sequence[Hit], message: Any = "") -> None:
    """The same windows in the same order; scores are those of float32."""
    assert [(hit.video, hit.root, hit.start, hit.end) for hit in found] == [
        (hit.video, hit.root, hit.start, hit.end) for hit in expected
    ], message
    np.testing.assert_allclose([hit.score for hit in found], [hit.score for hit in expected], rtol=1e-4, atol=1e-4)


def assert_equal_windows(found: Windows, expected: Windows) -> None:
    for name in ("starts", "ends", "vectors"):
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))
