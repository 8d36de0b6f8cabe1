"""Dot products that are all summed in the same order: equal vectors have equal scores. D width."""

import numpy as np
from jaxtyping import Float, Int

FACTORS_AT_ONCE = 2**17  # half a megabyte, which stays in the processor's cache


def exact_scores(left: Float[np.ndarray, "*#N D"], right: Float[np.ndarray, "*#N D"]) -> Float[np.ndarray, "*N"]:
    """The dot product of each two vectors, in float32 or wider; axes but the last, at least one, are broadcast.

    A matrix product or einsum rounds a score by its place in the result, so equal inputs may differ there.
    This is several times slower; the products exist for a part of the first axis at a time.
    """
    dtype = np.result_type(left, right, np.float32)
    left, right = np.broadcast_arrays(left.astype(dtype, copy=False), right.astype(dtype, copy=False))
    scores = np.empty(left.shape[:-1], dtype)
    step = max(1, FACTORS_AT_ONCE // max(1, left[:1].size))
    with np.errstate(invalid="ignore", over="ignore"):  # as a matrix product: infinite and NaN, without a warning
        for begin in range(0, len(left), step):
            some = slice(begin, begin + step)
            # In C order numpy sums a vector's products by themselves, the same way for every vector.
            scores[some] = np.multiply(left[some], right[some], order="C").sum(axis=-1)
    return scores


def pair_scores(
    queries: Float[np.ndarray, "Q D"],
    candidates: Float[np.ndarray, "V D"],
    query: Int[np.ndarray, " N"],
    candidate: Int[np.ndarray, " N"],
) -> Float[np.ndarray, " N"]:
    """`exact_scores` of pairs, each a row of `queries` and one of `candidates`."""
    scores = np.empty(len(query), np.result_type(queries, candidates, np.float32))
    step = max(1, FACTORS_AT_ONCE // max(1, queries.shape[1]))
    for begin in range(0, len(query), step):
        pairs = slice(begin, begin + step)
        scores[pairs] = exact_scores(queries[query[pairs]], candidates[candidate[pairs]])
    return scores
