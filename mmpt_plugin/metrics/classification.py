"""Classification: one label an item. N items, C classes."""

import numpy as np
from jaxtyping import Float, Int


def classification(scores: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> dict[str, float]:
    """`top1` and `top5` as shares of the items, and the mean over classes of top1; ties count against the scores."""
    right = np.take_along_axis(scores, labels[:, None], axis=1)
    ranks = (scores >= right).sum(axis=1)
    per_class = [(ranks[labels == label] <= 1).mean() for label in np.unique(labels)]
    return {
        "top1": float((ranks <= 1).mean()),
        "top5": float((ranks <= 5).mean()),
        "mean_per_class": float(np.mean(per_class)),
    }
