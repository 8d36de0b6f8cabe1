"""One index for all ranks of a distributed job; every rank gets the same neighbours, and must ask for the same."""

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.distributed import gather_arrays, rank, world_size
from mmpt_plugin.index.build import Index
from mmpt_plugin.index.flat import Found

QUERIES = 32768  # queries whose answers are merged at a time


class SharedQueries:
    """Every rank holds all vectors and searches for its share of the queries."""

    def __init__(self, index: Index) -> None:
        self.index = index

    def only(self, rows: Int[np.ndarray, " R"]) -> "SharedQueries":
        """The same among fewer vectors."""
        return SharedQueries(self.index.only(rows))

    def neighbours(self, rows: Int[np.ndarray, " Q"], k: int) -> Int[np.ndarray, "Q K"]:
        """The rows of the k vectors nearest to each of these, nearest first."""
        each = -(-len(rows) // world_size())
        mine = np.resize(rows, world_size() * each)[rank() * each :][:each]
        found = self.index.search(self.index.vectors[mine], k)[1]
        return gather_arrays(found).reshape(-1, k)[: len(rows)]


class SharedVectors:
    """Every rank holds a part of the vectors, in the order of ranks, and searches it for all queries.

    For more vectors than one machine has memory for.
    """

    def __init__(self, index: Index) -> None:
        sizes = gather_arrays(np.array(len(index.vectors)))
        self.index, self.begin, self.end = index, int(sizes[: rank()].sum()), int(sizes[: rank() + 1].sum())

    def only(self, rows: Int[np.ndarray, " R"]) -> "SharedVectors":
        """The same among fewer vectors."""
        fewer = object.__new__(SharedVectors)
        mine = rows[(rows >= self.begin) & (rows < self.end)] - self.begin
        fewer.__dict__.update(self.__dict__, index=self.index.only(mine))
        return fewer

    def neighbours(self, rows: Int[np.ndarray, " Q"], k: int) -> Int[np.ndarray, "Q K"]:
        """The rows of the k vectors nearest to each of these, nearest first."""
        return np.concatenate(
            [self.search(self.take(rows[i : i + QUERIES]), k)[1] for i in range(0, len(rows), QUERIES)]
        )

    def take(self, rows: Int[np.ndarray, " Q"]) -> Float[np.ndarray, "Q D"]:
        """Vectors of any rank."""
        here = (rows >= self.begin) & (rows < self.end)
        taken = np.zeros((len(rows), self.index.vectors.shape[1]), self.index.vectors.dtype)
        taken[here] = self.index.vectors[rows[here] - self.begin]
        total: np.ndarray = gather_arrays(taken).sum(axis=0)  # all but one are zero
        return total

    def search(self, queries: Float[np.ndarray, "Q D"], k: int) -> Found:
        """Scores (the higher the nearer) and rows of the k nearest to each query, nearest first."""
        scores, rows = self.index.search(queries, k)
        rows = np.where(rows < 0, rows, rows + self.begin)
        scores, rows = (np.concatenate(list(gather_arrays(part)), axis=1) for part in (scores, rows))
        order = np.argsort(-scores, axis=1, kind="stable")[:, :k]
        return np.take_along_axis(scores, order, axis=1), np.take_along_axis(rows, order, axis=1)
