"""Exact nearest neighbors on a GPU, with FAISS."""

import faiss
import numpy as np
import torch
from jaxtyping import Float, Int

from mmpt_plugin.index.flat import Found

METRICS = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
VECTORS_CHUNK = 65536  # vectors copied to the GPU at a time


def has_gpu() -> bool:
    """Whether this build of FAISS can use a GPU and sees one."""
    return hasattr(faiss, "StandardGpuResources") and faiss.get_num_gpus() > 0


class GpuFlat:
    """FAISS's flat index in float16, on this process's GPU."""

    def __init__(
        self,
        vectors: Float[np.ndarray, "V D"],
        *,
        metric: str = "inner_product",
        rows: Int[np.ndarray, " R"] | None = None,
    ) -> None:
        self.vectors, self.metric = vectors, metric
        self.rows = np.arange(len(vectors)) if rows is None else rows
        config = faiss.GpuIndexFlatConfig()
        config.useFloat16 = True
        config.device = torch.cuda.current_device() if torch.cuda.is_available() else 0
        self.resources = faiss.StandardGpuResources()
        self.index = faiss.GpuIndexFlat(self.resources, vectors.shape[1], METRICS[metric], config)
        for begin in range(0, len(self.rows), VECTORS_CHUNK):
            self.index.add(vectors[self.rows[begin : begin + VECTORS_CHUNK]].astype(np.float32))

    def only(self, rows: Int[np.ndarray, " R"]) -> "GpuFlat":
        """The same index over a subset of the rows."""
        return GpuFlat(self.vectors, metric=self.metric, rows=rows)

    def search(self, queries: Float[np.ndarray, "Q D"], k: int) -> Found:
        """Scores (higher is nearer) and rows of the k nearest vectors to each query, nearest first."""
        asked = queries.astype(np.float32)
        found, positions = self.index.search(asked, k)
        if self.metric == "l2":  # the same scale as flat.scores
            found = (np.square(asked).sum(axis=1, keepdims=True) - found) / 2
        return found, np.append(self.rows, -1)[positions]  # FAISS's -1 for missing results stays -1
