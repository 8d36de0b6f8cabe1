"""Nearest neighbours by FAISS."""

import faiss
import numpy as np
from jaxtyping import Float, Int

METRICS = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}


def nearest(
    vectors: Float[np.ndarray, "V D"],
    queries: Float[np.ndarray, "Q D"],
    k: int,
    *,
    metric: str = "inner_product",
) -> Int[np.ndarray, "Q K"]:
    """The indices of the k vectors nearest to each query, nearest first, exactly."""
    if metric not in METRICS:
        raise ValueError(f"no metric '{metric}'. Possible: {sorted(METRICS)}")
    if k > len(vectors):
        raise ValueError(f"{k} neighbours were asked for among {len(vectors)} vectors")
    index = faiss.IndexFlat(vectors.shape[1], METRICS[metric])
    index.add(np.ascontiguousarray(vectors, dtype=np.float32))
    neighbours: np.ndarray = index.search(np.ascontiguousarray(queries, dtype=np.float32), k)[1]
    return neighbours
