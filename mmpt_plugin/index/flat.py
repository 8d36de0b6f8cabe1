"""Exact nearest neighbors: a matrix product in chunks, which keeps only the best k per query."""

from itertools import product
from threading import Lock

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpt_plugin.index.parallel import in_parallel

FEW = 32768  # up to this many vectors, an exact matrix product is used instead of lists
VECTORS_CHUNK = 1024  # vectors scored at a time
QUERIES_CHUNK = 512  # queries scored at a time

Found = tuple[Float[np.ndarray, "Q K"], Int[np.ndarray, "Q K"]]


class Flat:
    """An exact index over some or all rows of an array of float32 or float16 vectors; the array is not copied."""

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
        best, vectors = Best(len(queries), k), torch.from_numpy(self.vectors)

        def score(which: Int[Tensor, " B"], rows: Int[Tensor, " R"]) -> None:
            asked = torch.from_numpy(queries[which.numpy()]).float()
            best.add(which, scores(asked, vectors[rows].float(), self.metric), rows)

        chunks = product(
            torch.split(torch.arange(len(queries)), QUERIES_CHUNK),
            torch.split(torch.from_numpy(self.rows), VECTORS_CHUNK),
        )
        in_parallel(score, chunks)
        return best.sorted()


def scores(queries: Float[Tensor, "Q D"], vectors: Float[Tensor, "V D"], metric: str) -> Float[Tensor, "Q V"]:
    """Inner products qv; for l2, qv - |v|²/2, which sorts the vectors of one query by distance."""
    products = queries @ vectors.T
    if metric == "l2":
        products -= vectors.square().sum(dim=1) / 2
    return products


class Best:
    """The k best scores per query of all that were added; -inf and row -1 if there were fewer. `add` is thread-safe."""

    def __init__(self, num_queries: int, k: int) -> None:
        self.scores = torch.full((num_queries, k), -torch.inf)
        self.rows = torch.full((num_queries, k), -1)
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
        return scores.numpy(), self.rows.gather(1, order).numpy()
