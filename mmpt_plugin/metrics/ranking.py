"""The rank of the target among scored choices; ties count against the model. N rows, C choices."""

import numpy as np
from jaxtyping import Float, Int


def target_rank(scores: Float[np.ndarray, "N C"], target: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The rank, from 1, of each row's target: 1 plus the number of other choices that do not score below it.

    A target with a NaN score ranks last; another choice with a NaN score counts as above the target.
    """
    num_rows, num_choices = scores.shape
    if num_rows == 0:
        raise ValueError("there is nothing to score: 0 rows")
    outside = np.flatnonzero((target < 0) | (target >= num_choices))
    if len(outside):
        row = outside[0]
        raise ValueError(f"row {row}: the target is {target[row]}, but the choices are 0 to {num_choices - 1}")
    below = scores < np.take_along_axis(scores, target[:, None], axis=1)  # (N, C)
    ranks: Int[np.ndarray, " N"] = num_choices - np.count_nonzero(below, axis=1)
    return ranks
