"""Draw the clusters of an epoch from the vectors of all videos: time, recall, coverage and memory.

    python -m benchmarks.clusters --videos 100000 --json

Compares four methods to find the 64 nearest of each of N/32 random videos, run in sequence, each in its own process:
ours (build, search and draw, as in training before an epoch); ours with `cover: true`; exact, a matrix product of the
same queries with all vectors in chunks; plain, FAISS's IVF512 with one list probed, one query at a time.

The vectors are float16 and have structure: topics in 32 directions of decreasing weight, variance within the topics,
and noise in all directions (`--noise` is its share of the variance; 1 is noise only). Their lengths are equal, so the
inner product sorts as the cosine does; with `--lengths 0.3` the logarithms of their lengths are normal with this
standard deviation, and long vectors are near to many others by inner product. `--distance l2` searches by distance.
Memory is the process's peak minus its memory before it loads the vectors, so it includes the vectors. A warm-up search
in a thousand other vectors excludes memory that the libraries keep.
"""

import argparse
import json
import os
import resource
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from typing import Any

import faiss
import numpy as np
import torch
from jaxtyping import Float, Float16, Int

from mmpt_plugin.index import SharedQueries, build_index
from mmpt_plugin.index.lists import InvertedLists
from mmpt_plugin.samplers.coverage import coverage
from mmpt_plugin.samplers.retrieval_augmented import covering_clusters, random_clusters

WIDTH, SIZE, CANDIDATES = 768, 32, 64
DIRECTIONS, TOPIC_SIZE, WITHIN_TOPICS = 32, 500, 0.4
VECTORS_CHUNK = 16384  # vectors generated at a time
QUERIES_CHUNK = 256  # queries of the exact method at a time

Vectors = Float16[np.ndarray, "V D"]
Neighbors = Int[np.ndarray, "Q K"]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--videos", type=int, default=100_000)
    parser.add_argument("--noise", type=float, default=0.1)
    parser.add_argument("--lengths", type=float, default=0.0, metavar="SIGMA")
    parser.add_argument("--distance", choices=("inner_product", "l2"), default="inner_product")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vectors.npy"
        apart(make_vectors, path, arguments.videos, arguments.noise, arguments.lengths)
        result = measure(path, arguments.distance)
    print(
        "{videos:,} videos: ours {seconds:.1f} s (with cover {cover_seconds:.1f} s), exact {exact_seconds:.1f} s, "
        "plain {plain_seconds:.1f} s; recall {recall:.3f}, plain {plain_recall:.3f}; coverage {random_coverage:.3f}, "
        "with cover {coverage:.3f}; {peak_memory_bytes:,} bytes for {vector_bytes:,} of vectors".format(**result)
    )
    if arguments.json:
        print(json.dumps(result))


def measure(path: Path, distance: str) -> dict[str, Any]:
    """The median of three rounds for few videos, because other load on the machine can double a short time."""
    few = len(np.load(path, mmap_mode="r")) <= 100_000
    rounds = [one_round(path, distance) for _ in range(3 if few else 1)]
    return {
        key: value if isinstance(value, str) else median(r[key] for r in rounds) for key, value in rounds[0].items()
    }


def one_round(path: Path, distance: str) -> dict[str, Any]:
    exact, exact_seconds = apart(exact_route, path, distance)
    plain, plain_seconds = apart(plain_route, path)
    ours, figures = apart(our_route, path, distance)
    cover = apart(covering_route, path, distance)
    return {
        "recall": recall(ours, exact),
        "plain_recall": recall(plain, exact),
        "exact_seconds": exact_seconds,
        "plain_seconds": plain_seconds,
        **figures,
        **cover,
        "peak_memory_bytes": max(figures["random_memory_bytes"], cover["cover_memory_bytes"]),
    }


def apart(route: Callable[..., Any], *arguments: Any) -> Any:
    """The result of `route`, run in a new process that uses all cores."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn"), initializer=use_all_cores) as pool:
        return pool.submit(route, *arguments).result()


def use_all_cores() -> None:
    cores = len(os.sched_getaffinity(0))
    torch.set_num_threads(cores)
    faiss.omp_set_num_threads(cores)


def make_vectors(path: Path, num_videos: int, noise: float, lengths: float = 0.0) -> None:
    rng = np.random.default_rng(0)
    weights = 1 / np.sqrt(1 + np.arange(DIRECTIONS))
    directions = np.linalg.qr(rng.standard_normal((WIDTH, DIRECTIONS)))[0].T * weights[:, None]
    directions *= np.sqrt((1 - noise) * WIDTH / np.square(weights).sum())
    topics = rng.standard_normal((max(num_videos // TOPIC_SIZE, 1), DIRECTIONS)) * np.sqrt(1 - WITHIN_TOPICS)
    vectors = np.lib.format.open_memmap(path, "w+", np.float16, (num_videos, WIDTH))
    for begin in range(0, num_videos, VECTORS_CHUNK):
        count = min(VECTORS_CHUNK, num_videos - begin)
        places = topics[rng.integers(len(topics), size=count)]
        places += np.sqrt(WITHIN_TOPICS) * rng.standard_normal(places.shape)
        chunk = (places @ directions).astype(np.float32)
        chunk += np.float32(np.sqrt(noise)) * rng.standard_normal(chunk.shape, dtype=np.float32)
        chunk *= np.sqrt(WIDTH) / np.linalg.norm(chunk, axis=1, keepdims=True)
        if lengths:
            chunk *= np.exp(lengths * rng.standard_normal((count, 1)))
        vectors[begin : begin + count] = chunk


def drawing() -> np.random.Generator:
    return np.random.default_rng([1, 1])


def centers(num_videos: int) -> Int[np.ndarray, " C"]:
    """The centers that random_clusters draws."""
    return drawing().choice(num_videos, -(-num_videos // SIZE), replace=False)


def our_route(path: Path, distance: str) -> tuple[Neighbors, dict[str, Any]]:
    before = resident_bytes_after_warm_up()
    vectors = np.load(path)
    index, build_seconds = timed(lambda: SharedQueries(build_index(vectors, k=CANDIDATES, metric=distance)))
    clusters, draw_seconds = timed(lambda: random_clusters(index, len(vectors), SIZE, CANDIDATES, drawing()))
    memory = peak_bytes() - before
    found, search_seconds = timed(lambda: index.neighbors(centers(len(vectors)), CANDIDATES))
    return found, {
        "videos": len(vectors),
        "vector_bytes": vectors.nbytes,
        "distance": distance,
        "index": type(index.index).__name__,
        "seconds": build_seconds + draw_seconds,
        "build_seconds": build_seconds,
        "search_seconds": search_seconds,
        "random_coverage": coverage(clusters, len(vectors)).share,
        "random_memory_bytes": memory,
        "similarity": similarity(vectors, clusters),
        "uniform_similarity": similarity(vectors, drawing().choice(len(vectors), clusters.shape)),
    }


def covering_route(path: Path, distance: str) -> dict[str, Any]:
    before = resident_bytes_after_warm_up()
    vectors = np.load(path)
    index, build_seconds = timed(lambda: SharedQueries(build_index(vectors, k=CANDIDATES, metric=distance)))
    clusters, draw_seconds = timed(lambda: covering_clusters(index, len(vectors), SIZE, CANDIDATES, drawing()))
    return {
        "cover_memory_bytes": peak_bytes() - before,
        "cover_seconds": build_seconds + draw_seconds,
        "coverage": coverage(clusters, len(vectors)).share,
        "cover_similarity": similarity(vectors, clusters),
    }


def exact_route(path: Path, distance: str) -> tuple[Neighbors, float]:
    vectors = torch.from_numpy(np.load(path).astype(np.float32))
    queries = vectors[torch.from_numpy(centers(len(vectors)))]

    def nearest(part: torch.Tensor) -> torch.Tensor:
        scores = part @ vectors.T
        if distance == "l2":
            scores -= vectors.square().sum(dim=1) / 2
        return scores.topk(CANDIDATES).indices

    found, seconds = timed(lambda: torch.cat([nearest(part) for part in torch.split(queries, QUERIES_CHUNK)]))
    return found.numpy(), seconds


def plain_route(path: Path) -> tuple[Neighbors, float]:
    """L2 (for equal lengths the same as the inner product); 512 lists, trained on the first 48 vectors per list."""
    vectors = np.load(path).astype(np.float32)
    queries = vectors[centers(len(vectors))]

    def search() -> Neighbors:
        index = faiss.IndexIVFFlat(faiss.IndexFlatL2(WIDTH), WIDTH, 512)
        index.train(vectors[: 512 * 48])
        index.add(vectors)
        return np.concatenate([index.search(query[None], CANDIDATES)[1] for query in queries])

    return timed(search)


def recall(found: Neighbors, exact: Neighbors) -> float:
    shares = [len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, exact, strict=True)]
    return float(np.mean(shares))


def similarity(vectors: Vectors, clusters: Int[np.ndarray, "C K"]) -> float:
    """The mean cosine of two videos in a cluster, over the first thousand clusters."""
    members: Float[np.ndarray, "C K D"] = vectors[clusters[:1000]].astype(np.float32)
    members /= np.linalg.norm(members, axis=2, keepdims=True)
    size = members.shape[1]
    return float(((np.square(members.sum(axis=1)).sum(axis=1) - size) / (size * (size - 1))).mean())


def timed(action: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = action()
    return result, time.perf_counter() - start


def resident_bytes_after_warm_up() -> int:
    few = np.random.default_rng(0).standard_normal((1000, WIDTH), dtype=np.float32)
    InvertedLists(few, k=CANDIDATES).search(few, CANDIDATES)
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def peak_bytes() -> int:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


if __name__ == "__main__":
    main()
