"""Where the right choice stands among scored choices; ties count against the model. N rows, C choices."""

import numpy as np
from jaxtyping import Float, Int


def right_rank(scores: Float[np.ndarray, "N C"], right: Int[np.ndarray, " N"]) -> Int[np.ndarray, " N"]:
    """The rank, from 1, of each row's right choice: one more than the others that do not score below it.

    A right choice whose score is no number ranks last, and another's that is none counts as above.
    """
    num_rows, num_choices = scores.shape
    if num_rows == 0:
        raise ValueError("there is nothing to score: 0 rows")
    outside = np.flatnonzero((right < 0) | (right >= num_choices))
    if len(outside):
        row = outside[0]
        raise ValueError(f"row {row}: {right[row]} is right, but the choices are 0 to {num_choices - 1}")
    below = scores < np.take_along_axis(scores, right[:, None], axis=1)  # (N, C)
    ranks: Int[np.ndarray, " N"] = num_choices - np.count_nonzero(below, axis=1)
    return ranks
