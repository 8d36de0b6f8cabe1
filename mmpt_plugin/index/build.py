"""Choose an index by the number of vectors and the hardware."""

import numpy as np
import torch
from jaxtyping import Float

from mmpt_plugin.index.flat import FEW, METRICS, Flat
from mmpt_plugin.index.lists import InvertedLists

Index = Flat | InvertedLists
"""Any of the indexes. Row numbers always refer to the array that the index was built from."""


def build_index(
    vectors: Float[np.ndarray, "V D"],
    *,
    k: int,
    metric: str = "inner_product",
    recall: float = 0.95,
    seed: int = 0,
) -> Index:
    """An exact index on a GPU, for few vectors or for recall 1; otherwise inverted lists with at least `recall` at k.

    `vectors` are float32 or float16, C-contiguous. An index does not copy them, so they must not change.
    """
    if metric not in METRICS:
        raise ValueError(f"no metric '{metric}'. Possible: {sorted(METRICS)}")
    if torch.cuda.is_available() or len(vectors) <= FEW or recall == 1:
        return Flat(vectors, metric=metric)
    return InvertedLists(vectors, k=k, metric=metric, recall=recall, seed=seed).or_flat()
