"""Retrieval metrics from embeddings: recall at k, median and mean rank. Q queries, V candidates."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.metrics.ranking import right_rank

RECALL_AT = (1, 5, 10)
SCORES_AT_ONCE = 2**24  # 64 MB: enough queries in a block to keep the processor at its product
FACTORS_AT_ONCE = 2**17  # half a megabyte, which stays in the processor's cache


def ranks(
    queries: Float[np.ndarray, "Q D"],
    candidates: Float[np.ndarray, "V D"],
    right: Int[np.ndarray, " Q"],
    *,
    block: int | None = None,
) -> Int[np.ndarray, " Q"]:
    """The rank, from 1, of each query's right candidate by dot product; ties count against it.

    A right candidate whose score is no number ranks last, and a wrong one whose score is none stands above. At most
    block x V scores exist at a time, 64 MB by default; nearly equal candidates cost the most time, up to about a
    microsecond a pair.
    """
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
        ranked[rows] = right_rank(scores, rows)
    return ranked


def summary(ranked: Int[np.ndarray, " Q"], *, prefix: str) -> dict[str, float]:
    """`{prefix}_recall@1/5/10` as shares of the queries, `{prefix}_median_rank` and `{prefix}_mean_rank`."""
    values = {f"{prefix}_recall@{k}": float((ranked <= k).mean()) for k in RECALL_AT}
    return values | {
        f"{prefix}_median_rank": float(np.median(ranked)),
        f"{prefix}_mean_rank": float(ranked.mean()),
    }


def chance(num_candidates: int, *, prefixes: Iterable[str] = ("t2v", "v2t")) -> dict[str, float]:
    """What a random order of the candidates scores on average, one of them being right."""
    middle = (num_candidates + 1) / 2
    values = {f"recall@{k}": min(k / num_candidates, 1.0) for k in RECALL_AT}
    values |= {"median_rank": middle, "mean_rank": middle}
    return {f"{prefix}_{key}": value for prefix in prefixes for key, value in values.items()}


def block_ranks(
    queries: Float[np.ndarray, "Q D"],
    candidates: Float[np.ndarray, "V D"],
    right: Int[np.ndarray, " Q"],
    margins: Float[np.ndarray, " Q"],
) -> Int[np.ndarray, " Q"]:
    """Ranks from one matrix product, as exact as if every score had been summed alike.

    The product rounds a score by where it stands in the matrix, so equal candidates may differ in it. It decides
    only what lies further than the margin from the right score; the few that lie nearer are scored again.
    """
    best = pair_scores(queries, candidates, np.arange(len(queries)), right)
    num_below, near = np.empty(len(queries), dtype=np.int64), []
    scores = queries @ candidates.T
    for i, (low, high) in enumerate(zip(best - margins, best + margins, strict=True)):  # a row stays in the cache
        below = scores[i] < low
        num_below[i] = np.count_nonzero(below)
        near.append(np.flatnonzero(below ^ (scores[i] <= high)))
    query = np.repeat(np.arange(len(queries)), [len(places) for places in near])
    near_below = pair_scores(queries, candidates, query, np.concatenate(near)) < best[query]
    num_below += np.bincount(query[near_below], minlength=len(queries))
    ranked: Int[np.ndarray, " Q"] = len(candidates) - num_below
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


def check_right(right: Int[np.ndarray, " Q"], num_candidates: int) -> None:
    if len(right) == 0:
        raise ValueError("there is nothing to rank: 0 queries")
    wrong = np.flatnonzero((right < 0) | (right >= num_candidates))
    if len(wrong):
        query = wrong[0]
        raise ValueError(f"query {query} names a right candidate outside 0 to {num_candidates - 1}: {right[query]}")
