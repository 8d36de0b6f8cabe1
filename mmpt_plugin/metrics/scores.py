"""Dot products that are all summed in the same order, so equal vectors have equal scores. D width."""

import numpy as np
from jaxtyping import Float, Int

FACTORS_CHUNK = 2**17  # half a megabyte, which fits into the CPU cache


def exact_scores(left: Float[np.ndarray, "*#N D"], right: Float[np.ndarray, "*#N D"]) -> Float[np.ndarray, "*N"]:
    """The dot products of vectors in the last axis, in float32 or wider; all other axes (at least one) are broadcast.

    In a matrix product or einsum, the rounding of a score depends on its position, so equal inputs may get different
    scores. This function is several times slower; it computes a part of the first axis at a time to save memory.
    """
    dtype = np.result_type(left, right, np.float32)
    left, right = np.broadcast_arrays(left.astype(dtype, copy=False), right.astype(dtype, copy=False))
    scores = np.empty(left.shape[:-1], dtype)
    step = max(1, FACTORS_CHUNK // max(1, left[:1].size))
    with np.errstate(invalid="ignore", over="ignore"):  # like a matrix product: inf and NaN without a warning
        for begin in range(0, len(left), step):
            some = slice(begin, begin + step)
            # In C order, NumPy sums the products of each vector separately and in the same order.
            scores[some] = np.multiply(left[some], right[some], order="C").sum(axis=-1)
    return scores


def pair_scores(
    queries: Float[np.ndarray, "Q D"],
    candidates: Float[np.ndarray, "V D"],
    query: Int[np.ndarray, " N"],
    candidate: Int[np.ndarray, " N"],
) -> Float[np.ndarray, " N"]:
    """`exact_scores` of pairs: row `query[i]` of `queries` and row `candidate[i]` of `candidates`."""
    scores = np.empty(len(query), np.result_type(queries, candidates, np.float32))
    step = max(1, FACTORS_CHUNK // max(1, queries.shape[1]))
    for begin in range(0, len(query), step):
        pairs = slice(begin, begin + step)
        scores[pairs] = exact_scores(queries[query[pairs]], candidates[candidate[pairs]])
    return scores
