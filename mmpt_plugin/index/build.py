"""Which index suits how many vectors and what machine."""

import numpy as np
from jaxtyping import Float

from mmpt_plugin.index.flat import FEW, Flat
from mmpt_plugin.index.gpu import METRICS, GpuFlat, has_gpu
from mmpt_plugin.index.lists import InvertedLists

Index = Flat | GpuFlat | InvertedLists
"""Vectors to search. Rows, in questions and answers, are those of the array that an index was built from."""


def build_index(
    vectors: Float[np.ndarray, "V D"],
    *,
    k: int,
    metric: str = "inner_product",
    recall: float = 0.95,
    seed: int = 0,
) -> Index:
    """Exact on a GPU, for few vectors and with recall 1; else inverted lists, with at least `recall` at k.

    `vectors` are float32 or float16; an index on the CPU reads them where they are, so they must not change.
    """
    if metric not in METRICS:
        raise ValueError(f"no metric '{metric}'. Possible: {sorted(METRICS)}")
    if has_gpu():
        return GpuFlat(vectors, metric=metric)
    if len(vectors) <= FEW or recall == 1:
        return Flat(vectors, metric=metric)
    return InvertedLists(vectors, k=k, metric=metric, recall=recall, seed=seed).or_flat()
