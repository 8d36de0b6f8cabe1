"""Retrieval where several candidates mean the same: ranks by meaning, and the metrics of a random order.

Q queries, N candidates with M embeddings, D embedding width.
"""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.metrics.retrieval import RECALL_AT, best_scores, by_group, group_ranks

PAIRS_CHUNK = 2**18  # pairs of equal meaning whose scores are in memory at a time
ROUNDING = 1e-9


def meaning_ranks(
    queries: Float[np.ndarray, "Q D"],
    members: Float[np.ndarray, "M D"],
    group: Int[np.ndarray, " M"],
    *,
    wanted: Int[np.ndarray, " Q"],
    meaning: Int[np.ndarray, " N"],
) -> Int[np.ndarray, " Q"]:
    """The rank, from 1, of the best candidate whose `meaning` is the one that the query wants.

    It is 1 plus the number of candidates of other meanings that do not score below it: ties between meanings count
    against the query, and ties within the wanted one do not. Candidate i has the score of the best of its members,
    those with `group` i, as in `best_member_ranks`. A query whose meaning no candidate has is a ValueError.
    """
    members, begins = by_group(members, group, len(meaning))
    best, rivals = np.zeros(len(queries), int), np.zeros(len(queries), int)
    for some, same in chunks_of_equal_meaning(wanted, meaning):
        pairs = np.repeat(some, len(same)), np.tile(same, len(some))
        scores = best_scores(queries, members, begins, *pairs).reshape(len(some), len(same))
        place = np.where(np.isnan(scores), -np.inf, scores).argmax(axis=1)
        best[some] = same[place]
        # group_ranks counts these against the best one: the equal ones, and those whose score is NaN.
        rivals[some] = (~(scores < np.take_along_axis(scores, place[:, None], axis=1))).sum(axis=1) - 1
    ranked: Int[np.ndarray, " Q"] = group_ranks(queries, members, begins, best, None) - rivals
    return ranked


def chunks_of_equal_meaning(
    wanted: Int[np.ndarray, " Q"], meaning: Int[np.ndarray, " N"]
) -> Iterator[tuple[Int[np.ndarray, " _"], Int[np.ndarray, " _"]]]:
    """Yield queries and all candidates of one meaning, until every query has been yielded once."""
    candidates, queries = np.argsort(meaning, kind="stable"), np.argsort(wanted, kind="stable")
    for label in np.unique(wanted):
        same = candidates[slice(*np.searchsorted(meaning[candidates], (label, label + 1)))]
        if not len(same):
            raise ValueError(f"no candidate has the meaning {label} that a query wants")
        rows = queries[slice(*np.searchsorted(wanted[queries], (label, label + 1)))]
        step = max(1, PAIRS_CHUNK // len(same))
        yield from ((rows[begin : begin + step], same) for begin in range(0, len(rows), step))


def random_order_metrics(
    num_candidates: Int[np.ndarray, " Q"], num_right: Int[np.ndarray, " Q"], *, prefix: str
) -> dict[str, float]:
    """The expected metrics, as `retrieval_metrics` names them, of a searcher that orders candidates at random.

    Query i has `num_right[i]` right ones among its `num_candidates[i]`, and its rank is that of the first right one.
    Recall and mean rank are exact expected values; the median is that of the rank of a random query. With one right
    candidate of n, recall@k is min(k, n) / n and the mean rank (n + 1) / 2.
    """
    pairs, counts = np.unique(np.stack([num_candidates, num_right], axis=1), axis=0, return_counts=True)
    (num, right), share = pairs.T, counts / counts.sum()
    later = np.ones(len(pairs))  # for each pair, the probability of a rank above k
    found: list[float] = []  # over all queries, the probability of a rank of at most k
    for k in range(1, int(num.max()) + 1):
        later *= np.maximum(num - right - k + 1, 0) / np.maximum(num - k + 1, 1)
        found.append(float(1 - share @ later))
        if k >= max(RECALL_AT) and found[-1] > 0.5 + ROUNDING:
            break
    below, above = (1 + int(np.argmax(np.array(found) > limit)) for limit in (0.5 - ROUNDING, 0.5 + ROUNDING))
    return {f"{prefix}_recall@{k}": found[min(k, len(found)) - 1] for k in RECALL_AT} | {
        f"{prefix}_median_rank": (below + above) / 2,
        f"{prefix}_mean_rank": float(share @ ((num + 1) / (right + 1))),
    }
