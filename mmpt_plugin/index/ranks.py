"""One index for all ranks of a distributed job. All ranks must search for the same rows, and get the same result."""

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.distributed import gather_arrays, rank, world_size
from mmpt_plugin.index.build import Index
from mmpt_plugin.index.flat import Found

QUERIES_CHUNK = 32768  # queries whose results are merged at a time


class SharedQueries:
    """Every rank holds all vectors and searches for its share of the queries."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def only(self, rows: Int[np.ndarray, " R"]) -> "SharedQueries":
        """The same index over a subset of the rows."""
        return SharedQueries(self.index.only(rows))

    def neighbors(self, rows: Int[np.ndarray, " Q"], k: int) -> Int[np.ndarray, "Q K"]:
        """The rows of the k vectors nearest to each of the vectors `rows`, nearest first."""
        each = -(-len(rows) // world_size())
        mine = np.resize(rows, world_size() * each)[rank() * each :][:each]
        found = self.index.search(self.index.vectors[mine], k)[1]
        return gather_arrays(found).reshape(-1, k)[: len(rows)]


class SharedVectors:
    """Every rank holds a part of the vectors, in rank order, and searches it for all queries.

    Use it for more vectors than fit into the memory of one machine.
    """

    def __init__(self, index: Index) -> None:
        sizes = gather_arrays(np.array(len(index.vectors)))
        self.index, self.begin, self.end = index, int(sizes[: rank()].sum()), int(sizes[: rank() + 1].sum())

    def only(self, rows: Int[np.ndarray, " R"]) -> "SharedVectors":
        """The same index over a subset of the rows."""
        fewer = object.__new__(SharedVectors)
        mine = rows[(rows >= self.begin) & (rows < self.end)] - self.begin
        fewer.__dict__.update(self.__dict__, index=self.index.only(mine))
        return fewer

    def neighbors(self, rows: Int[np.ndarray, " Q"], k: int) -> Int[np.ndarray, "Q K"]:
        """The rows of the k vectors nearest to each of the vectors `rows`, nearest first."""
        return np.concatenate(
            [self.search(self.take(rows[i : i + QUERIES_CHUNK]), k)[1] for i in range(0, len(rows), QUERIES_CHUNK)]
        )

    def take(self, rows: Int[np.ndarray, " Q"]) -> Float[np.ndarray, "Q D"]:
        """The vectors of these rows, from any rank."""
        here = (rows >= self.begin) & (rows < self.end)
        taken = np.zeros((len(rows), self.index.vectors.shape[1]), self.index.vectors.dtype)
        taken[here] = self.index.vectors[rows[here] - self.begin]
        total: np.ndarray = gather_arrays(taken).sum(axis=0)  # all but one are zero
        return total

    def search(self, queries: Float[np.ndarray, "Q D"], k: int) -> Found:
        """Scores (higher is nearer) and rows of the k nearest vectors to each query, nearest first."""
        scores, rows = self.index.search(queries, k)
        rows = np.where(rows < 0, rows, rows + self.begin)
        scores, rows = (np.concatenate(list(gather_arrays(part)), axis=1) for part in (scores, rows))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
