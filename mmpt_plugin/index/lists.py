"""Approximate nearest neighbors with inverted lists: a query searches only a few cells, with a measured recall."""

import logging

import faiss
import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpt_plugin.index.flat import FEW, QUERIES_CHUNK, Best, Flat, Found, scores
from mmpt_plugin.index.parallel import in_parallel

logger = logging.getLogger(__name__)

SAMPLE = 256  # queries to measure recall with
SAMPLE_AGAIN = 64  # queries to measure recall with for a subset of the vectors
ITERATIONS = 6
POINTS_PER_CELL = 32  # vectors per cell that k-means is trained on
VECTORS_CHUNK = 1024  # vectors or queries compared with all cells at a time


class InvertedLists:
    """k-means cells over the vectors, which are not copied; a list holds the rows of one cell.

    One matrix product per list scores all queries that probe it. This is several times faster than FAISS's scan, which
    takes one query at a time, and needs no second copy of the vectors. Scores are exact, so a neighbor is found
    whenever its list is probed, and the exact neighbors of a sample of the vectors give the recall for every number
    of probed lists. The index probes the smallest number of lists whose recall, minus two standard errors, is at least
    `recall`.
    """

    def __init__(
        self,
        vectors: Float[np.ndarray, "V D"],
        *,
        k: int,
        metric: str = "inner_product",
        recall: float = 0.95,
        seed: int = 0,
    ) -> None:
        self.vectors, self.k, self.metric, self.recall = vectors, k, metric, recall
        self.rng = np.random.default_rng(seed)
        self.cells, self.cell_of = k_means(vectors, round(len(vectors) ** 0.5), self.rng)
        self._set_rows(np.arange(len(vectors)), SAMPLE)

    def only(self, rows: Int[np.ndarray, " R"]) -> "InvertedLists | Flat":
        """The same index over a subset of the rows, with the same cells; recall is measured again."""
        if len(rows) <= FEW:
            return Flat(self.vectors, metric=self.metric, rows=rows)
        fewer = object.__new__(InvertedLists)
        fewer.__dict__.update(self.__dict__)
        fewer._set_rows(rows, SAMPLE_AGAIN)
        return fewer.or_flat()

    def or_flat(self) -> "InvertedLists | Flat":
        """This index; or the exact one if half of the lists or more must be probed (vectors without structure)."""
        spare = 2 * self.num_probes < len(self.cells)
        return self if spare else Flat(self.vectors, metric=self.metric, rows=torch.cat(self.lists).numpy())

    def _set_rows(self, rows: Int[np.ndarray, " R"], num_samples: int) -> None:
        by_cell = rows[np.argsort(self.cell_of[rows], kind="stable")]
        self.sizes = torch.from_numpy(np.bincount(self.cell_of[rows], minlength=len(self.cells)))
        self.lists = torch.split(torch.from_numpy(by_cell), self.sizes.tolist())
        self.num_probes = self._tuned(rows, num_samples)

    def _tuned(self, rows: Int[np.ndarray, " R"], num_samples: int) -> int:
        """The number of lists to probe."""
        sample = self.vectors[self.rng.choice(rows, min(num_samples, len(rows)), replace=False)]
        k = min(self.k, len(rows))
        exact = Flat(self.vectors, metric=self.metric, rows=rows).search(sample, k)[1]
        turn = self._probe_order(torch.from_numpy(sample)).argsort(dim=1)  # (Q, L): lists probed before this one
        needed = turn.gather(1, torch.from_numpy(self.cell_of[exact]))
        found = torch.stack([torch.bincount(row, minlength=len(self.cells)) for row in needed])
        recalls = found.cumsum(dim=1) / k  # (Q, L): with 1, 2, .. lists probed
        mean, error = recalls.mean(dim=0), recalls.std(dim=0) / len(sample) ** 0.5
        num_probes = int((mean - 2 * error >= self.recall).int().argmax()) + 1
        logger.info(
            "%d vectors in %d lists, %d probed: recall@%d %.3f ± %.3f on a sample of %d (one list: %.3f)",
            len(rows), len(self.cells), num_probes, k, mean[num_probes - 1], error[num_probes - 1], len(sample),
            mean[0],
        )  # fmt: skip
        return num_probes

    def _probe_order(self, queries: Float[Tensor, "Q D"]) -> Int[Tensor, "Q L"]:
        """The lists in the order in which each query probes them."""
        return scores(queries.float(), self.cells, self.metric).argsort(dim=1, descending=True)

    def _probes(self, queries: Float[Tensor, "Q D"], k: int) -> tuple[Int[Tensor, " P"], Int[Tensor, " P"]]:
        """Pairs of a query and a list that it probes: num_probes lists, and more until the lists hold k vectors."""
        order = self._probe_order(queries)
        sizes = self.sizes[order]
        met_before = sizes.cumsum(dim=1) - sizes
        probed = (torch.arange(order.shape[1]) < self.num_probes) | (met_before < k)
        return probed.nonzero()[:, 0], order[probed]

    def search(self, queries: Float[np.ndarray, "Q D"], k: int) -> Found:
        """Scores (higher is nearer) and rows of the k nearest vectors to each query, nearest first."""
        best, vectors = Best(len(queries), k), torch.from_numpy(self.vectors)

        def probe(which: Int[Tensor, " B"], rows: Int[Tensor, " R"]) -> None:
            if len(which) and len(rows):
                asked = torch.from_numpy(queries[which.numpy()]).float()
                best.add(which, scores(asked, vectors[rows].float(), self.metric), rows)

        pairs = [self._probes(part, k) for part in torch.split(torch.from_numpy(queries), VECTORS_CHUNK)]
        query = torch.cat([which + number * VECTORS_CHUNK for number, (which, _) in enumerate(pairs)])
        probed, by_list = torch.cat([lists for _, lists in pairs]).sort()
        asking = torch.split(query[by_list], torch.bincount(probed, minlength=len(self.cells)).tolist())
        chunks = (
            (part, rows)
            for which, rows in zip(asking, self.lists, strict=True)
            for part in torch.split(which, QUERIES_CHUNK)
        )
        in_parallel(probe, chunks)
        return best.sorted()


def k_means(
    vectors: Float[np.ndarray, "V D"], num_cells: int, rng: np.random.Generator
) -> tuple[Float[Tensor, "L D"], Int[np.ndarray, " V"]]:
    """The means of the cells, trained on a sample, and the cell of every vector."""
    rows = rng.choice(len(vectors), min(len(vectors), num_cells * POINTS_PER_CELL), replace=False)
    means = faiss.Kmeans(
        vectors.shape[1], num_cells, niter=ITERATIONS, seed=int(rng.integers(2**31)), min_points_per_centroid=1
    )
    means.train(vectors[np.sort(rows)].astype(np.float32))
    cells = torch.from_numpy(means.centroids)
    cell_of = torch.empty(len(vectors), dtype=torch.int64)

    def assign(chunk: Float[Tensor, "B D"], to: Int[Tensor, " B"]) -> None:
        to[:] = scores(chunk.float(), cells, "l2").argmax(dim=1)

    in_parallel(
        assign,
        zip(torch.split(torch.from_numpy(vectors), VECTORS_CHUNK), torch.split(cell_of, VECTORS_CHUNK), strict=True),
    )
    return cells, cell_of.numpy()
