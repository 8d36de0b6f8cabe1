"""Choose an index by the number of vectors and the hardware."""

import numpy as np
from jaxtyping import Float

from mmpt_plugin.index.flat import FEW, Flat
from mmpt_plugin.index.gpu import METRICS, GpuFlat, has_gpu
from mmpt_plugin.index.lists import InvertedLists

Index = Flat | GpuFlat | InvertedLists
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

    `vectors` are float32 or float16. An index on the CPU does not copy them, so they must not change.
    """
    if metric not in METRICS:
        raise ValueError(f"no metric '{metric}'. Possible: {sorted(METRICS)}")
    if has_gpu():
        return GpuFlat(vectors, metric=metric)
    if len(vectors) <= FEW or recall == 1:
        return Flat(vectors, metric=metric)
    return InvertedLists(vectors, k=k, metric=metric, recall=recall, seed=seed).or_flat()
