"""Insert the moments of many videos in a collection's store, and search, replace and delete them.

    python -m benchmarks.search --moments 100000 --json

The vectors have 768 dimensions and no unit length (6.9 ± 1.0, as VideoCLIP's). A video has 120 windows that drift
through some of 400 topics; queries are vectors near topics, on the other side of a gap between the modalities. The
exact search is a NumPy product of each query with all vectors, in the same run. CPU times are of all threads.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from mmpt_plugin.search.collection import COMMIT_ROWS
from mmpt_plugin.search.stores import lance
from mmpt_plugin.search.stores.store import Hit, StoredVideo, Where, Windows, store_of

WIDTH, WINDOWS, TOPICS, FOLDERS = 768, 120, 400, 10
QUERIES, K, CHANGES = 200, 10, 20
FOLDER = Where(prefixes=("Videos/3/",))


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--moments", type=int, default=100_000)
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        result = measure(Path(folder) / "collection", max(arguments.moments // WINDOWS, FOLDERS))
    print(
        "{moments:,} moments: {insert_per_s:,.0f} a second in, index {index_cpu_s:.1f} CPU-s; a query {cpu_ms:.1f} "
        "CPU-ms (p50 {p50_ms:.1f} ms, p99 {p99_ms:.1f} ms), exact {exact_cpu_ms:.1f}; recall@10 {recall:.3f}, in one "
        "folder {filtered_recall:.3f}; replace a video {replace_ms:.0f} ms, delete {delete_ms:.0f} ms; disk "
        "{disk_ratio:.2f} times the vectors".format(**result)
    )
    if arguments.json:
        print(json.dumps(result))


def measure(url: Path, videos: int) -> dict[str, Any]:
    rng = np.random.default_rng(0)
    topics = rng.standard_normal((TOPICS, WIDTH)).astype(np.float32)
    gap = rng.standard_normal(WIDTH).astype(np.float32)
    lance.KEPT = timedelta(0)  # nobody else reads: the size on disk is that of one version
    store: Any = store_of(str(url))
    store.create({"version": 1}, width=WIDTH)
    vectors = np.empty((videos * WINDOWS, WIDTH), np.float32)
    inserting = 0.0
    for first in range(0, videos, COMMIT_ROWS // WINDOWS):
        some = range(first, min(first + COMMIT_ROWS // WINDOWS, videos))
        made = {name(video): row(video, windows_of(rng, topics)) for video in some}
        vectors[first * WINDOWS : (some[-1] + 1) * WINDOWS] = np.concatenate([own.vectors for _, own in made.values()])
        inserting += wall(store.replace, made)
    index_cpu_s = cpu(store.compact)
    queries = [near(rng, topics, gap) for _ in range(QUERIES)]
    store.nearest(queries[0], K, Where())  # opens the index
    result = {"moments": len(vectors), "insert_per_s": len(vectors) / inserting, "index_cpu_s": index_cpu_s}
    result |= search(store, vectors, queries, Where(), everything=np.ones(len(vectors), bool))
    in_folder = np.arange(len(vectors)) // WINDOWS % FOLDERS == 3
    result |= {
        f"filtered_{key}": value
        for key, value in search(store, vectors, queries, FOLDER, everything=in_folder).items()
        if not key.startswith("exact")
    }
    chosen = rng.permutation(videos)[: 2 * CHANGES]
    again = [{name(video): row(video, windows_of(rng, topics))} for video in chosen[:CHANGES]]
    result["replace_ms"] = 1000 * float(np.median([wall(store.replace, one) for one in again]))
    gone = [[name(video)] for video in chosen[CHANGES:]]
    result["delete_ms"] = 1000 * float(np.median([wall(store.remove, one) for one in gone]))
    store.compact()
    size = sum(path.stat().st_size for path in url.rglob("*") if path.is_file())
    return result | {"disk_ratio": size / vectors.nbytes}


def search(
    store: Any, vectors: Float[np.ndarray, "N D"], queries: list[Any], where: Where, *, everything: Any
) -> dict[str, float]:
    """Times of single queries, and the part of the exact best 10 among the allowed rows that was found."""
    (allowed,) = np.nonzero(everything)
    walls, found = [], []
    before = time.process_time()
    for query in queries:
        started = time.perf_counter()
        found.append(store.nearest(query, K, where))
        walls.append(time.perf_counter() - started)
    cpu_ms = 1000 * (time.process_time() - before) / len(queries)
    before = time.process_time()
    scores = [vectors @ query for query in queries[:20]]
    exact_cpu_ms = 1000 * (time.process_time() - before) / len(scores)
    right = [
        len({place_of(hit) for hit in hits} & set(allowed[np.argsort((vectors @ query)[allowed])[-K:]].tolist()))
        for query, hits in zip(queries, found, strict=True)
    ]
    return {
        "recall": float(np.mean(right)) / K,
        "cpu_ms": cpu_ms,
        "p50_ms": 1000 * float(np.percentile(walls, 50)),
        "p99_ms": 1000 * float(np.percentile(walls, 99)),
        "queries_per_s": len(queries) / sum(walls),
        "exact_cpu_ms": exact_cpu_ms,
    }


def windows_of(rng: np.random.Generator, topics: Float[np.ndarray, "T D"]) -> Windows:
    """The windows of one video: every 12 drift from one topic to the next."""
    visited = topics[rng.integers(TOPICS, size=WINDOWS // 12 + 1)]
    steps = np.arange(WINDOWS) / 12
    part = (steps % 1)[:, None].astype(np.float32)
    path = visited[steps.astype(int)] * (1 - part) + visited[steps.astype(int) + 1] * part
    own = rng.standard_normal(WIDTH).astype(np.float32)
    mixed = path + 0.5 * own + 0.5 * rng.standard_normal((WINDOWS, WIDTH)).astype(np.float32)
    lengths = rng.normal(6.9, 1.0, (WINDOWS, 1)).astype(np.float32)
    starts = np.arange(WINDOWS, dtype=np.float64) * 2
    return Windows(starts, starts + 6, mixed / np.linalg.norm(mixed, axis=1, keepdims=True) * lengths)


def near(
    rng: np.random.Generator, topics: Float[np.ndarray, "T D"], gap: Float[np.ndarray, " D"]
) -> Float[np.ndarray, " D"]:
    """A query about one topic."""
    made = topics[rng.integers(TOPICS)] + gap + 0.5 * rng.standard_normal(WIDTH)
    vector: Float[np.ndarray, " D"] = (made / np.linalg.norm(made)).astype(np.float32)
    return vector


def row(video: int, windows: Windows) -> tuple[StoredVideo, Windows]:
    return StoredVideo("/videos", 1, 1, f"{video:064}", WINDOWS * 2.0 + 4), windows


def name(video: int) -> str:
    return f"Videos/{video % FOLDERS}/{video:07}.mp4"


def place_of(hit: Hit) -> int:
    """The row of a hit in the matrix of all vectors."""
    return int(hit.video.rpartition("/")[2].removesuffix(".mp4")) * WINDOWS + round(hit.start / 2)


def wall(call: Callable[..., object], *arguments: object) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call(*arguments)
    return time.perf_counter() - started


def cpu(call: Callable[[], object]) -> float:
    """CPU seconds of all threads that a call takes."""
    started = time.process_time()
    call()
    return time.process_time() - started


if __name__ == "__main__":
    main()
