"""Retrieval metrics from embeddings: recall at k, median and mean rank. Q queries, V candidates."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.metrics.scores import pair_scores

RECALL_AT = (1, 5, 10)
NEAR_AT_ONCE = 2**12  # groups whose scores are computed again together
SCORES_AT_ONCE = 2**24  # 64 MB: enough queries in a block to keep the processor at its product


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
    return group_ranks(queries, candidates, np.arange(len(candidates) + 1), right, block)


def best_member_ranks(
    queries: Float[np.ndarray, "G D"],
    members: Float[np.ndarray, "M D"],
    group: Int[np.ndarray, " M"],
    *,
    block: int | None = None,
) -> Int[np.ndarray, " G"]:
    """The rank, from 1, of query i's own group i, where a group scores as its best member; ties count against it.

    Videos looking for their text where each has several captions. Memory, time and scores that are no numbers are as
    in `ranks`, with M members in place of V candidates.
    """
    check_groups(group, len(queries))
    order = np.argsort(group, kind="stable")
    begins = np.searchsorted(group[order], np.arange(len(queries) + 1))
    return group_ranks(queries, members[order], begins, np.arange(len(queries)), block)


def summary(ranked: Int[np.ndarray, " Q"], *, prefix: str) -> dict[str, float]:
    """`{prefix}_recall@1/5/10` as shares of the queries, `{prefix}_median_rank` and `{prefix}_mean_rank`."""
    values = {f"{prefix}_recall@{k}": float((ranked <= k).mean()) for k in RECALL_AT}
    return values | {
        f"{prefix}_median_rank": float(np.median(ranked)),
        f"{prefix}_mean_rank": float(ranked.mean()),
    }


def retrieval_chance(num_candidates: int, *, prefixes: Iterable[str] = ("t2v", "v2t")) -> dict[str, float]:
    """What a random order of the candidates scores on average, one of them being right."""
    middle = (num_candidates + 1) / 2
    values = {f"recall@{k}": min(k / num_candidates, 1.0) for k in RECALL_AT}
    values |= {"median_rank": middle, "mean_rank": middle}
    return {f"{prefix}_{key}": value for prefix in prefixes for key, value in values.items()}


def group_ranks(
    queries: Float[np.ndarray, "Q D"],
    members: Float[np.ndarray, "M D"],
    begins: Int[np.ndarray, " N"],
    right: Int[np.ndarray, " Q"],
    block: int | None,
) -> Int[np.ndarray, " Q"]:
    """The rank of each query's right group; group g are the members `begins[g]` to `begins[g + 1]`."""
    dtype = np.result_type(queries, members, np.float32)
    queries, members = queries.astype(dtype, copy=False), members.astype(dtype, copy=False)
    lengths = norms(members)
    longest = lengths.max(where=np.isfinite(lengths), initial=0)
    # Twice how far a sum of D products may be off in any order, for a score and for the one it is compared with.
    margins = (queries.shape[1] + 2) * np.finfo(dtype).eps * longest * norms(queries)
    size = block or max(1, SCORES_AT_ONCE // len(members))
    blocks = [slice(begin, begin + size) for begin in range(0, len(queries), size)]
    with np.errstate(invalid="ignore"):  # embeddings that are no numbers
        return np.concatenate([block_ranks(queries[b], members, begins, right[b], margins[b]) for b in blocks])


def block_ranks(
    queries: Float[np.ndarray, "Q D"],
    members: Float[np.ndarray, "M D"],
    begins: Int[np.ndarray, " N"],
    right: Int[np.ndarray, " Q"],
    margins: Float[np.ndarray, " Q"],
) -> Int[np.ndarray, " Q"]:
    """Ranks from one matrix product, as exact as if every score had been summed alike.

    The product rounds a score by its place in the matrix, so equal members may differ in it. It decides only what
    is further than the margin from the right score; the few that are nearer are scored again.
    """
    num_groups = len(begins) - 1
    best = best_scores(queries, members, begins, np.arange(len(queries)), right)
    scores = queries @ members.T
    if num_groups < len(members):
        scores = np.maximum.reduceat(scores, begins[:-1], axis=1)  # (Q, M) -> (Q, G)
    ranked = np.full(len(queries), num_groups)
    near: list[Int[np.ndarray, " _"]] = []  # of the last rows, each one's groups to be compared again
    num_near = 0
    for i, (low, high) in enumerate(zip(best - margins, best + margins, strict=True)):  # a row stays in the cache
        below = scores[i] < low
        ranked[i] -= np.count_nonzero(below)
        near.append(np.flatnonzero(below ^ (scores[i] <= high)))
        num_near += len(near[-1])
        if i + 1 == len(queries) or num_near > NEAR_AT_ONCE:
            query = np.repeat(np.arange(i + 1 - len(near), i + 1), [len(groups) for groups in near])
            again = best_scores(queries, members, begins, query, np.concatenate(near))
            ranked -= np.bincount(query[again < best[query]], minlength=len(queries))
            near, num_near = [], 0
    return ranked


def best_scores(
    queries: Float[np.ndarray, "Q D"],
    members: Float[np.ndarray, "M D"],
    begins: Int[np.ndarray, " N"],
    query: Int[np.ndarray, " P"],
    group: Int[np.ndarray, " P"],
) -> Float[np.ndarray, " P"]:
    """For each pair of a query and a group the highest exact score of the group's members."""
    sizes = begins[group + 1] - begins[group]
    places = np.cumsum(sizes) - sizes  # of each group's first member among those of all pairs
    member = np.arange(sizes.sum()) + np.repeat(begins[group] - places, sizes)
    best: Float[np.ndarray, " P"] = np.maximum.reduceat(
        pair_scores(queries, members, np.repeat(query, sizes), member), places
    )
    return best


def norms(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """The Euclidean length of each vector."""
    lengths: Float[np.ndarray, " N"] = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return lengths


def check_right(right: Int[np.ndarray, " Q"], num_candidates: int) -> None:
    """ValueError if there are no queries, or if one names a right candidate that does not exist."""
    if len(right) == 0:
        raise ValueError("there is nothing to rank: 0 queries")
    wrong = np.flatnonzero((right < 0) | (right >= num_candidates))
    if len(wrong):
        query = wrong[0]
        raise ValueError(f"query {query} names a right candidate outside 0 to {num_candidates - 1}: {right[query]}")


def check_groups(group: Int[np.ndarray, " M"], num_groups: int) -> None:
    """ValueError if there are no groups, if one has no member, or if a member's group does not exist."""
    if num_groups == 0:
        raise ValueError("there is nothing to rank: 0 queries")
    wrong = np.flatnonzero((group < 0) | (group >= num_groups))
    if len(wrong):
        member = wrong[0]
        raise ValueError(f"member {member} is of a group outside 0 to {num_groups - 1}: {group[member]}")
    empty = np.flatnonzero(np.bincount(group, minlength=num_groups) == 0)
    if len(empty):
        raise ValueError(f"group {empty[0]} has no member")
