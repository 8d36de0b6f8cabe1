"""Speed of the metrics, compared with straightforward implementations in the same run.

    python -m benchmarks.evaluate --queries 10000 --json

Retrieval is compared with a full argsort of all similarities, segmentation and localization with loops over frames.
Both retrieval methods need the matrix product, so its time, `product_seconds`, limits their ratio; the rest is the time
for ranking. Peak memory is that of this process (on Linux), including the embeddings, before the argsort.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.metrics.localization import ordered_steps
from mmpt_plugin.metrics.retrieval import SCORES_CHUNK, ranks, retrieval_metrics
from mmpt_plugin.metrics.segmentation import segmentation

WIDTH = 768
ARGSORTED_AT_MOST = 10**8  # scores; each needs 17 bytes with its index
NUM_VIDEOS, NUM_SECONDS, NUM_STEPS, NUM_CLASSES = 400, 300, 8, 779
FRAME_REPEATS = 5


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--queries", type=int, default=10_000, help="number of queries, and of candidates")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    if min(arguments.queries, arguments.repeats) < 1:
        parser.error("--queries and --repeats must be at least 1")
    values = retrieval(arguments.queries, arguments.repeats) | frames()
    show(values)
    if arguments.json:
        print(json.dumps(values))
    return 0


def show(values: dict[str, float]) -> None:
    number, argsorted, otherwise = (values[f"{x}queries"] for x in ("", "argsorted_", "otherwise_ranked_"))
    scaled = f" (scaled from {argsorted} queries)" if argsorted < number else ""
    alone, argsort_alone = (values[f"{x}seconds"] - values[f"{x}product_seconds"] for x in ("", "argsort_"))
    print(f"{number} queries x {number} candidates: {values['seconds']:.2f} s, ", end="")
    print(f"at most {values['peak_memory_bytes'] / 1e6:.0f} MB in the process")
    print(f"full argsort: {values['argsort_seconds']:.2f} s{scaled}, ", end="")
    print(f"with another rank for {otherwise} of {argsorted} queries (scores that differ only by rounding)")
    print(f"without the matrix product: {alone:.2f} s, argsort {argsort_alone:.2f} s")
    for kind in ("segmentation", "localization"):
        ours, plain = values[f"{kind}_seconds"], values[f"{kind}_plain_seconds"]
        print(f"{kind}: {1000 * ours:.1f} ms, plain loops {1000 * plain:.0f} ms, a speedup of {plain / ours:.0f}")


def retrieval(num_queries: int, repeats: int) -> dict[str, float]:
    text, video = embeddings(num_queries)
    target = np.arange(num_queries)
    num_argsorted = max(1, min(num_queries, ARGSORTED_AT_MOST // num_queries))
    queries = text[:num_argsorted]

    def ours() -> tuple[Int[np.ndarray, " Q"], int]:
        return ranking(text, video), peak_memory_bytes()

    ranks(text[:100], video[:100], target[:100])  # warm-up: BLAS starts its threads
    ways: dict[str, Callable[[], Any]] = {
        "ours": ours,
        "product": lambda: multiply(text, video, size=max(1, SCORES_CHUNK // num_queries)),
        "argsort": lambda: argsort_ranks(queries, video, target[:num_argsorted]),
        "argsort_product": lambda: multiply(queries, video, size=num_argsorted),
    }
    seconds, results = compare(ways, repeats)
    (ranked, peak), scale = results["ours"], num_queries / num_argsorted
    return {
        "queries": num_queries,
        "seconds": seconds["ours"],
        "product_seconds": seconds["product"],
        "argsort_seconds": scale * seconds["argsort"],
        "argsort_product_seconds": scale * seconds["argsort_product"],
        "argsorted_queries": num_argsorted,
        "otherwise_ranked_queries": int((results["argsort"] != ranked[:num_argsorted]).sum()),
        "peak_memory_bytes": peak,
    }


def embeddings(num_queries: int) -> tuple[Float[np.ndarray, "Q D"], Float[np.ndarray, "Q D"]]:
    """Texts and their videos, which are similar."""
    rng = np.random.default_rng(0)
    video = rng.standard_normal((num_queries, WIDTH), dtype=np.float32)
    text = rng.standard_normal((num_queries, WIDTH), dtype=np.float32)
    text[:, : WIDTH // 8] += video[:, : WIDTH // 8]
    return text, video


def ranking(text: Float[np.ndarray, "Q D"], video: Float[np.ndarray, "Q D"]) -> Int[np.ndarray, " Q"]:
    """The ranks from which our metrics are computed, and the metrics."""
    ranked = ranks(text, video, np.arange(len(video)))
    retrieval_metrics(ranked, prefix="t2v")
    return ranked


def frames() -> dict[str, float]:
    rng = np.random.default_rng(0)
    true, predicted = (list(rng.integers(0, NUM_CLASSES, (NUM_VIDEOS, NUM_SECONDS))) for _ in range(2))
    costs = list(rng.random((NUM_VIDEOS, NUM_SECONDS, NUM_STEPS)))
    ways: dict[str, Callable[[], object]] = {
        "segmentation": lambda: segmentation(predicted, true, num_classes=NUM_CLASSES),
        "segmentation_plain": lambda: plain_segmentation(predicted, true),
        "localization": lambda: [ordered_steps(video).tolist() for video in costs],
        "localization_plain": lambda: [plain_ordered_steps(video.tolist()) for video in costs],
    }
    seconds, results = compare(ways, FRAME_REPEATS)
    for kind in ("segmentation", "localization"):
        assert results[kind] == results[f"{kind}_plain"], f"the two implementations of {kind} differ"
    return {f"{name}_seconds": value for name, value in seconds.items()}


def compare(ways: dict[str, Callable[[], Any]], repeats: int) -> tuple[dict[str, float], dict[str, Any]]:
    """The median seconds of each implementation, and its first result."""
    seconds: dict[str, list[float]] = {name: [] for name in ways}
    results: dict[str, Any] = {}
    for _ in range(repeats):  # alternate, so that all run under the same machine load
        for name, way in ways.items():
            start = time.perf_counter()
            result = way()
            seconds[name].append(time.perf_counter() - start)
            results.setdefault(name, result)
    return {name: median(runs) for name, runs in seconds.items()}, results


def multiply(queries: Float[np.ndarray, "Q D"], candidates: Float[np.ndarray, "V D"], *, size: int) -> None:
    """Only the matrix product, for `size` queries at a time."""
    for begin in range(0, len(queries), size):
        queries[begin : begin + size] @ candidates.T


def argsort_ranks(
    queries: Float[np.ndarray, "Q D"], candidates: Float[np.ndarray, "V D"], target: Int[np.ndarray, " Q"]
) -> Int[np.ndarray, " Q"]:
    order = np.argsort(-(queries @ candidates.T), axis=1)
    ranked: Int[np.ndarray, " Q"] = np.argmax(order == target[:, None], axis=1) + 1
    return ranked


def plain_segmentation(predicted: list[np.ndarray], true: list[np.ndarray]) -> dict[str, float]:
    num_true, num_predicted, num_right = ([0] * NUM_CLASSES for _ in range(3))
    for labels, answers in zip(true, predicted, strict=True):
        for label, answer in zip(labels.tolist(), answers.tolist(), strict=True):
            num_true[label] += 1
            num_predicted[answer] += 1
            num_right[label] += label == answer
    sums = list(zip(num_right, num_true, num_predicted, strict=True))
    return {
        "frame_accuracy": sum(num_right) / sum(num_true),
        "foreground_accuracy": sum(num_right[1:]) / sum(num_true[1:]),
        "macro_f1": float(np.mean([2 * r / (t + p) for r, t, p in sums if t + p])),
    }


def plain_ordered_steps(costs: list[list[float]]) -> list[int]:
    """The same alignment, with loops over frames and steps."""
    num_frames, num_steps = len(costs), len(costs[0])
    least = [[float("inf")] * num_steps for _ in range(num_frames)]  # min. cost of k + 1 steps up to frame t
    came = [[False] * num_steps for _ in range(num_frames)]  # whether step k is at frame t in it
    for t in range(num_frames):
        for k in range(min(t + 1, num_steps)):
            before = (least[t - 1][k - 1] if t else 0.0) if k else 0.0
            here, earlier = costs[t][k] + before, least[t - 1][k] if t else float("inf")
            came[t][k] = here < earlier
            least[t][k] = min(here, earlier)
    found, t = [], num_frames - 1
    for k in range(num_steps - 1, -1, -1):
        while not came[t][k]:
            t -= 1
        found.append(t)
        t -= 1
    return found[::-1]


def peak_memory_bytes() -> int:
    """The peak memory of this process; unlike getrusage, without that of its parent."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return 1024 * int(status["VmHWM"].split()[0])


if __name__ == "__main__":
    sys.exit(main())
