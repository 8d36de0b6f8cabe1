"""Retrieval metrics from similarities: recall at k, median and mean rank. Q queries, V candidates."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

RECALL_AT = (1, 5, 10)


def ranks(
    queries: Float[np.ndarray, "Q D"],
    candidates: Float[np.ndarray, "V D"],
    right: Int[np.ndarray, " Q"],
    *,
    block: int = 1024,
) -> Int[np.ndarray, " Q"]:
    """The rank, from 1, of each query's right candidate by dot product; ties count against it.

    A right candidate whose score is no number ranks last. At most block x V scores exist at a time.
    """
    ranked = np.empty(len(queries), dtype=np.int64)
    for begin in range(0, len(queries), block):
        rows = slice(begin, begin + block)
        scores = queries[rows] @ candidates.T
        right_scores = np.take_along_axis(scores, right[rows, None], axis=1)
        ranked[rows] = (~(scores < right_scores)).sum(axis=1)
    return ranked


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


def chance(num_candidates: int, *, prefixes: Iterable[str] = ("t2v", "v2t")) -> dict[str, float]:
    """What a random order of the candidates scores on average, one of them being right."""
    middle = (num_candidates + 1) / 2
    values = {f"recall@{k}": min(k / num_candidates, 1.0) for k in RECALL_AT}
    values |= {"median_rank": middle, "mean_rank": middle}
    return {f"{prefix}_{key}": value for prefix in prefixes for key, value in values.items()}
