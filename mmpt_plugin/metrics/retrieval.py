"""Retrieval metrics from embeddings: recall at k, median and mean rank. Q queries, V candidates."""

from collections.abc import Iterable

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.metrics.scores import pair_scores

RECALL_AT = (1, 5, 10)
GROUPS_CHUNK = 2**12  # groups whose scores are recomputed at a time
SCORES_CHUNK = 2**24  # 64 MB: enough queries per chunk to keep all cores busy with the matrix product


def ranks(
    queries: Float[np.ndarray, "Q D"],
    candidates: Float[np.ndarray, "V D"],
    target: Int[np.ndarray, " Q"],
    *,
    chunk_size: int | None = None,
) -> Int[np.ndarray, " Q"]:
    """The rank, from 1, of each query's target candidate by dot product; ties count against the target.

    A target with a NaN score ranks last; another candidate with a NaN score counts as above the target. At most
    chunk_size x V scores are in memory at a time, 64 MB by default. Nearly equal candidates take the most time, up to
    about a microsecond per pair.
    """
    check_targets(target, len(candidates))
    return group_ranks(queries, candidates, np.arange(len(candidates) + 1), target, chunk_size)


def best_member_ranks(
    queries: Float[np.ndarray, "G D"],
    members: Float[np.ndarray, "M D"],
    group: Int[np.ndarray, " M"],
    *,
    chunk_size: int | None = None,
) -> Int[np.ndarray, " G"]:
    """The rank, from 1, of group i for query i, where a group has the score of its best member; ties count against it.

    Use it for video-to-text retrieval when a video has several captions. Memory, time and NaN scores are as in `ranks`,
    with M members instead of V candidates.
    """
    members, begins = by_group(members, group, len(queries))
    return group_ranks(queries, members, begins, np.arange(len(queries)), chunk_size)


def by_group(
    members: Float[np.ndarray, "M D"], group: Int[np.ndarray, " M"], num_groups: int
) -> tuple[Float[np.ndarray, "M D"], Int[np.ndarray, " _"]]:
    """The members in the order of their groups, of which group g has `begins[g]` to `begins[g + 1]`, and `begins`.

    The errors are those of `check_groups`.
    """
    check_groups(group, num_groups)
    order = np.argsort(group, kind="stable")
    return members[order], np.searchsorted(group[order], np.arange(num_groups + 1))


def retrieval_metrics(ranked: Int[np.ndarray, " Q"], *, prefix: str) -> dict[str, float]:
    """`{prefix}_recall@1/5/10` as shares of the queries, `{prefix}_median_rank` and `{prefix}_mean_rank`.

    The median of an even number of ranks is the mean of the two in the middle. (CLIP4Clip and CLIP2Video take the lower
    of the two in text-to-video retrieval with several captions per video.)
    """
    values = {f"{prefix}_recall@{k}": float((ranked <= k).mean()) for k in RECALL_AT}
    return values | {
        f"{prefix}_median_rank": float(np.median(ranked)),
        f"{prefix}_mean_rank": float(ranked.mean()),
    }


def retrieval_chance(num_candidates: int, *, prefixes: Iterable[str] = ("t2v", "v2t")) -> dict[str, float]:
    """The expected metrics of a random order of the candidates, with one target per query."""
    middle = (num_candidates + 1) / 2
    values = {f"recall@{k}": min(k / num_candidates, 1.0) for k in RECALL_AT}
    values |= {"median_rank": middle, "mean_rank": middle}
    return {f"{prefix}_{key}": value for prefix in prefixes for key, value in values.items()}


def group_ranks(
    queries: Float[np.ndarray, "Q D"],
    members: Float[np.ndarray, "M D"],
    begins: Int[np.ndarray, " N"],
    target: Int[np.ndarray, " Q"],
    chunk_size: int | None,
) -> Int[np.ndarray, " Q"]:
    """The rank of each query's target group; group g consists of the members `begins[g]` to `begins[g + 1]`."""
    dtype = np.result_type(queries, members, np.float32)
    queries, members = queries.astype(dtype, copy=False), members.astype(dtype, copy=False)
    lengths = norms(members)
    longest = lengths.max(where=np.isfinite(lengths), initial=0)
    # Twice the maximum rounding error of a sum of D products in any order: for a score and the one it is compared with.
    margins = (queries.shape[1] + 2) * np.finfo(dtype).eps * longest * norms(queries)
    size = chunk_size or max(1, SCORES_CHUNK // len(members))
    chunks = [slice(begin, begin + size) for begin in range(0, len(queries), size)]
    with np.errstate(invalid="ignore"):  # for NaN and infinite embeddings
        return np.concatenate([chunk_ranks(queries[b], members, begins, target[b], margins[b]) for b in chunks])


def chunk_ranks(
    queries: Float[np.ndarray, "Q D"],
    members: Float[np.ndarray, "M D"],
    begins: Int[np.ndarray, " N"],
    target: Int[np.ndarray, " Q"],
    margins: Float[np.ndarray, " Q"],
) -> Int[np.ndarray, " Q"]:
    """Ranks from one matrix product, equal to the ranks if every score were summed in the same order.

    The rounding of a score in a matrix product depends on its position, so equal members may get different scores. The
    product therefore decides only for scores that differ from the target's by more than the margin; the few others are
    recomputed.
    """
    num_groups = len(begins) - 1
    best = best_scores(queries, members, begins, np.arange(len(queries)), target)
    scores = queries @ members.T
    if num_groups < len(members):
        scores = np.maximum.reduceat(scores, begins[:-1], axis=1)  # (Q, M) -> (Q, G)
    ranked = np.full(len(queries), num_groups)
    near: list[Int[np.ndarray, " _"]] = []  # for each of the last rows, the groups to compare again
    num_near = 0
    for i, (low, high) in enumerate(zip(best - margins, best + margins, strict=True)):  # by row, to stay in the cache
        below = scores[i] < low
        ranked[i] -= np.count_nonzero(below)
        near.append(np.flatnonzero(below ^ (scores[i] <= high)))
        num_near += len(near[-1])
        if i + 1 == len(queries) or num_near > GROUPS_CHUNK:
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
    """For each pair of a query and a group, the highest exact score of the group's members."""
    sizes = begins[group + 1] - begins[group]
    places = np.cumsum(sizes) - sizes  # index of each group's first member among the members of all pairs
    member = np.arange(sizes.sum()) + np.repeat(begins[group] - places, sizes)
    best: Float[np.ndarray, " P"] = np.maximum.reduceat(
        pair_scores(queries, members, np.repeat(query, sizes), member), places
    )
    return best


def norms(vectors: Float[np.ndarray, "N D"]) -> Float[np.ndarray, " N"]:
    """The Euclidean length of each vector."""
    lengths: Float[np.ndarray, " N"] = np.sqrt(np.einsum("nd,nd->n", vectors, vectors))
    return lengths


def check_targets(target: Int[np.ndarray, " Q"], num_candidates: int) -> None:
    """ValueError if there are no queries, or if a query's target does not exist."""
    if len(target) == 0:
        raise ValueError("there is nothing to rank: 0 queries")
    wrong = np.flatnonzero((target < 0) | (target >= num_candidates))
    if len(wrong):
        query = wrong[0]
        raise ValueError(f"query {query}: target {target[query]} is not a candidate of 0 to {num_candidates - 1}")


def check_groups(group: Int[np.ndarray, " M"], num_groups: int) -> None:
    """ValueError if there are no groups, if one has no member, or if a member's group does not exist."""
    if num_groups == 0:
        raise ValueError("there is nothing to rank: 0 queries")
    wrong = np.flatnonzero((group < 0) | (group >= num_groups))
    if len(wrong):
        member = wrong[0]
        raise ValueError(f"member {member}: group {group[member]} is not one of 0 to {num_groups - 1}")
    empty = np.flatnonzero(np.bincount(group, minlength=num_groups) == 0)
    if len(empty):
        raise ValueError(f"group {empty[0]} has no member")
