"""Retrieval metrics from embeddings: recall at k, median and mean rank. Q queries, V candidates, R right ones."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

RECALL_AT = (1, 5, 10)
SCORES_AT_ONCE = 2**24  # 64 MB: enough queries in a block to keep the processor at its product
FACTORS_AT_ONCE = 2**17  # half a megabyte, which stays in the processor's cache


def ranks(
    queries: Float[np.ndarray, "Q D"],
    candidates: Float[np.ndarray, "V D"],
    right: Int[np.ndarray, " Q"] | Int[np.ndarray, "Q R"],
    *,
    block: int | None = None,
) -> Int[np.ndarray, " Q"]:
    """The rank, from 1, of each query's right candidate by dot product; ties count against it.

    Where several are right (`captions_of`), the best one's rank among the wrong ones, as papers on MSVD, VATEX and
    the full MSR-VTT do from video to text. A right candidate whose score is no number ranks last, and a wrong one
    stands above. At most block x V scores exist at a time, 64 MB by default; nearly equal candidates cost the most
    time, up to about a microsecond a pair.
    """
    right = right if right.ndim == 2 else right[:, None]
    check_right(right, len(candidates))
    dtype = np.result_type(queries, candidates, np.float32)
    queries, candidates = queries.astype(dtype, copy=False), candidates.astype(dtype, copy=False)
    lengths = norms(candidates)
    longest = lengths.max(where=np.isfinite(lengths), initial=0)
    # Twice how far a sum of D products may be off in any order, for a score and for the one it is compared with.
    margins = (queries.shape[1] + 2) * np.finfo(dtype).eps * longest * norms(queries)
    size = block or max(1, SCORES_AT_ONCE // len(candidates))
    blocks = [slice(begin, begin + size) for begin in range(0, len(queries), size)]
    with np.errstate(invalid="ignore"):  # embeddings that are no numbers
        return np.concatenate([block_ranks(queries[b], candidates, right[b], margins[b]) for b in blocks])


def captions_of(video: Int[np.ndarray, " C"], *, num_videos: int) -> Int[np.ndarray, "V R"]:
    """The captions of each video, given the video of each caption; rows are filled up with -1."""
    outside = np.flatnonzero((video < 0) | (video >= num_videos))
    if len(outside):
        raise ValueError(f"caption {outside[0]} is of video {video[outside[0]]}, and videos are 0 to {num_videos - 1}")
    order = np.argsort(video, kind="stable")
    num_captions = np.bincount(video, minlength=num_videos)
    first = np.cumsum(num_captions) - num_captions
    captions = np.full((num_videos, num_captions.max()), -1)
    captions[video[order], np.arange(len(video)) - first[video[order]]] = order
    return captions


def best_member_ranks(
    queries: Float[np.ndarray, "G D"],
    members: Float[np.ndarray, "M D"],
    group: Int[np.ndarray, " M"],
    *,
    block: int = 256,
) -> Int[np.ndarray, " G"]:
    """The rank, from 1, of query i's own group i, where a group scores as its best member; ties count against it.

    Videos looking for their text where each has several captions. At most block x M scores exist at a time.
    """
    order = np.argsort(group, kind="stable")
    members, begins = members[order], np.searchsorted(group[order], np.arange(len(queries)))
    ranked = np.empty(len(queries), dtype=np.int64)
    for begin in range(0, len(queries), block):
        rows = np.arange(begin, min(begin + block, len(queries)))
        scores = np.maximum.reduceat(queries[rows] @ members.T, begins, axis=1)
        ranked[rows] = (~(scores < np.take_along_axis(scores, rows[:, None], axis=1))).sum(axis=1)
    return ranked


def summary(ranked: Int[np.ndarray, " Q"], *, prefix: str) -> dict[str, float]:
    """`{prefix}_recall@1/5/10` as shares of the queries, `{prefix}_median_rank` and `{prefix}_mean_rank`."""
    values = {f"{prefix}_recall@{k}": float((ranked <= k).mean()) for k in RECALL_AT}
    return values | {
        f"{prefix}_median_rank": float(np.median(ranked)),
        f"{prefix}_mean_rank": float(ranked.mean()),
    }


def chance(
    num_candidates: int,
    *,
    prefixes: Iterable[str] = ("t2v", "v2t"),
    num_right: Int[np.ndarray, " Q"] | int = 1,
) -> dict[str, float]:
    """What a random order of the candidates scores on average, so many of them being right for each query."""
    counts, num_queries = np.unique(num_right, return_counts=True)
    # The best of n right ones ranks below k when the first k are all wrong: the product of (V - n - i) / (V - i).
    place = np.arange(num_candidates)
    wrong = np.maximum(num_candidates - counts[:, None] - place, 0) / (num_candidates - place)
    found = 1 - np.average(np.cumprod(wrong, axis=1), axis=0, weights=num_queries)  # (V,): within the first k
    values = {f"recall@{k}": float(found[min(k, num_candidates) - 1]) for k in RECALL_AT}
    middle = [np.searchsorted(found, 0.5 - 1e-9), np.searchsorted(found, 0.5 + 1e-9)]
    values["median_rank"] = float(np.mean(middle)) + 1
    values["mean_rank"] = float(np.average((num_candidates + 1) / (counts + 1), weights=num_queries))
    return {f"{prefix}_{key}": value for prefix in prefixes for key, value in values.items()}


def block_ranks(
    queries: Float[np.ndarray, "Q D"],
    candidates: Float[np.ndarray, "V D"],
    right: Int[np.ndarray, "Q R"],
    margins: Float[np.ndarray, " Q"],
) -> Int[np.ndarray, " Q"]:
    """Ranks from one matrix product, as exact as if every score had been summed alike.

    The product rounds a score by where it stands in the matrix, so equal candidates may differ in it. It decides
    only what lies further than the margin from the right score; the few that lie nearer are scored again.
    """
    is_right = right >= 0
    right_scores = np.full(right.shape, np.nan, queries.dtype)
    right_scores[is_right] = pair_scores(queries, candidates, np.nonzero(is_right)[0], right[is_right])
    best = np.fmax.reduce(right_scores, axis=1)
    num_below, near = np.empty(len(queries), dtype=np.int64), []
    scores = queries @ candidates.T
    for i, (low, high) in enumerate(zip(best - margins, best + margins, strict=True)):  # a row stays in the cache
        below = scores[i] < low
        num_below[i] = np.count_nonzero(below)
        near.append(np.flatnonzero(below ^ (scores[i] <= high)))
    query = np.repeat(np.arange(len(queries)), [len(places) for places in near])
    near_below = pair_scores(queries, candidates, query, np.concatenate(near)) < best[query]
    num_below += np.bincount(query[near_below], minlength=len(queries))
    num_best = np.count_nonzero(is_right & ~(right_scores < best[:, None]), axis=1)
    ranked: Int[np.ndarray, " Q"] = len(candidates) - num_below - num_best + 1
    return ranked


def pair_scores(
    queries: Float[np.ndarray, "Q D"],
    candidates: Float[np.ndarray, "V D"],
    query: Int[np.ndarray, " N"],
    candidate: Int[np.ndarray, " N"],
) -> Float[np.ndarray, " N"]:
    """The dot product of each pair, every one summed in the same order: equal candidates score equal."""
    scores = np.empty(len(query), queries.dtype)
    step = max(1, FACTORS_AT_ONCE // queries.shape[1])
    for begin in range(0, len(query), step):
        pairs = slice(begin, begin + step)
        scores[pairs] = (queries[query[pairs]] * candidates[candidate[pairs]]).sum(axis=1)
    return scores


def norms(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    lengths: Float[np.ndarray, " N"] = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return lengths


def check_right(right: Int[np.ndarray, "Q R"], num_candidates: int) -> None:
    if len(right) == 0:
        raise ValueError("there is nothing to rank: 0 queries")
    ordered = np.sort(right, axis=1)
    twice = (ordered[:, 1:] == ordered[:, :-1]) & (ordered[:, 1:] >= 0)
    for wrong, trouble in (
        ((right < -1) | (right >= num_candidates), f"names a right candidate outside 0 to {num_candidates - 1}"),
        (right.max(axis=1, keepdims=True) < 0, "has no right candidate"),
        (twice, "names a right candidate twice"),
    ):
        if wrong.any():
            query = np.argwhere(wrong)[0, 0]
            raise ValueError(f"query {query} {trouble}: {right[query].tolist()}")
