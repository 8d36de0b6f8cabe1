"""Exact nearest neighbors: a matrix product in chunks that keeps the best k per query. On a GPU if there is one."""

from threading import Lock

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpt_plugin.hardware import compute_device
from mmpt_plugin.index.parallel import in_parallel

FEW = 32768  # up to this many vectors, an exact matrix product is used instead of lists
METRICS = ("inner_product", "l2")
VECTORS_CHUNK, QUERIES_CHUNK = 1024, 512  # scored at a time by a thread
GPU_VECTORS_CHUNK, GPU_QUERIES_CHUNK = 32768, 4096  # scored at a time by a GPU: 0.5 GB of scores

Found = tuple[Float[np.ndarray, "Q K"], Int[np.ndarray, "Q K"]]


class Flat:
    """An exact index over some or all rows of an array of float32 or float16 vectors; the array is not copied.

    A GPU holds one chunk of it at a time, so an index does not take GPU memory.
    """

    def __init__(
        self,
        vectors: Float[np.ndarray, "V D"],
        *,
        metric: str = "inner_product",
        rows: Int[np.ndarray, " R"] | None = None,
    ) -> None:
        self.vectors = vectors
        self.metric = metric
        self.rows = np.arange(len(vectors)) if rows is None else rows

    def only(self, rows: Int[np.ndarray, " R"]) -> "Flat":
        """The same index over a subset of the rows."""
        return Flat(self.vectors, metric=self.metric, rows=rows)

    def search(self, queries: Float[np.ndarray, "Q D"], k: int) -> Found:
        """Scores (higher is nearer) and rows of the k nearest vectors to each query, nearest first.

        If there are fewer than k vectors, the last scores are -inf and the last rows -1.
        """
        device = compute_device()
        asked, vectors = torch.from_numpy(queries).to(device).float(), torch.from_numpy(self.vectors)
        best = Best(len(queries), k, device)

        def score(rows: Int[Tensor, " R"], queries_chunk: int = QUERIES_CHUNK) -> None:
            part, rows = vectors[rows].to(device).float(), rows.to(device)
            for which in torch.split(torch.arange(len(asked), device=device), queries_chunk):
                best.add(which, scores(asked[which], part, self.metric), rows)

        rows = torch.from_numpy(self.rows)
        if device.type == "cpu":
            in_parallel(score, zip(torch.split(rows, VECTORS_CHUNK)))
        else:
            for chunk in torch.split(rows, GPU_VECTORS_CHUNK):
                score(chunk, GPU_QUERIES_CHUNK)
        return best.sorted()


def scores(queries: Float[Tensor, "Q D"], vectors: Float[Tensor, "V D"], metric: str) -> Float[Tensor, "Q V"]:
    """Inner products qv; for l2, qv - |v|²/2, which sorts the vectors of one query by distance."""
    products = queries @ vectors.T
    if metric == "l2":
        products -= vectors.square().sum(dim=1) / 2
    return products


class Best:
    """The k best scores per query of all that were added; -inf and row -1 if there were fewer. `add` is thread-safe."""

    def __init__(self, num_queries: int, k: int, device: torch.device | str = "cpu") -> None:
        self.scores = torch.full((num_queries, k), -torch.inf, device=device)
        self.rows = torch.full((num_queries, k), -1, device=device)
        self.lock = Lock()

    def add(self, which: Int[Tensor, " B"], scores: Float[Tensor, "B R"], rows: Int[Tensor, " R"]) -> None:
        """Add the scores of the queries `which` for the vectors `rows`."""
        k = self.scores.shape[1]
        scores, place = scores.topk(min(k, scores.shape[1]), sorted=False)
        with self.lock:
            scores = torch.cat([self.scores[which], scores], dim=1)
            candidates = torch.cat([self.rows[which], rows[place]], dim=1)
            self.scores[which], kept = scores.topk(k, sorted=False)
            self.rows[which] = candidates.gather(1, kept)

    def sorted(self) -> Found:
        """Scores and rows of the k best of each query, best first."""
        scores, order = self.scores.sort(dim=1, descending=True)
        return scores.cpu().numpy(), self.rows.gather(1, order).cpu().numpy()
