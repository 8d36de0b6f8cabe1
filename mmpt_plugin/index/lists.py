"""Approximate nearest neighbors with FAISS's inverted lists: a query searches a few lists, with a measured recall."""

import logging
from bisect import bisect_left
from copy import copy

import faiss
import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from mmpt_plugin.index.flat import FEW, Flat, Found

logger = logging.getLogger(__name__)

FAISS_METRICS = {"inner_product": faiss.METRIC_INNER_PRODUCT, "l2": faiss.METRIC_L2}
FAISS_FORMATS = {"float16": "SQfp16", "float32": "Flat"}
SAMPLE = 256  # queries to measure recall with
SAMPLE_AGAIN = 64  # queries to measure recall with for a subset of the vectors
ITERATIONS = 6
POINTS_PER_LIST = 32  # vectors per list that k-means is trained on
QUERY_BITS = 4  # FAISS's default from 1.14 on; with the earlier one, float queries, a search takes 100 times as long
VECTORS_CHUNK = 8192  # vectors encoded at a time
CANDIDATES = (4, 16)  # times k vectors are scored exactly; the second if the recall is not reached with the first


class InvertedLists:
    """Lists of 1-bit codes (RaBitQ), and exact scores of the vectors whose codes are nearest to the query's.

    The vectors are not copied: the lists hold D / 8 bytes and a few more for each, and FAISS has a view of the array.
    The exact neighbors of a sample of the vectors give the recall. The index probes the smallest number of lists whose
    recall, minus two standard errors, is at least `recall`.
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
        faiss.omp_set_num_threads(torch.get_num_threads())
        self.lists = lists_of(vectors, metric, self.rng)
        self.index = faiss.IndexRefine(self.lists, view_of(vectors, metric))
        self._set_rows(np.arange(len(vectors)), SAMPLE)

    def only(self, rows: Int[np.ndarray, " R"]) -> "InvertedLists | Flat":
        """The same index over a subset of the rows, with the same lists; recall is measured again."""
        if len(rows) <= FEW:
            return Flat(self.vectors, metric=self.metric, rows=rows)
        fewer = copy(self)
        fewer._set_rows(rows, SAMPLE_AGAIN)
        return fewer.or_flat()

    def or_flat(self) -> "InvertedLists | Flat":
        """This index; or the exact one if half of the lists or more must be probed (vectors without structure)."""
        spare = 2 * self.num_probes < self.lists.nlist
        return self if spare else Flat(self.vectors, metric=self.metric, rows=self.rows)

    def search(self, queries: Float[np.ndarray, "Q D"], k: int) -> Found:
        """Scores (higher is nearer) and rows of the k nearest vectors to each query, nearest first."""
        asked = queries.astype(np.float32)
        found, rows = self._probe(asked, k, self.num_probes)
        if self.metric == "l2":  # FAISS's are squared distances
            found = (np.square(asked).sum(axis=1, keepdims=True) - found) / 2
        return np.where(rows < 0, np.float32(-np.inf), found), rows

    def _probe(self, asked: Float32[np.ndarray, "Q D"], k: int, num_probes: int) -> Found:
        """What FAISS finds in this number of lists, or in more where these hold fewer than k vectors."""
        lists = faiss.SearchParametersIVF(nprobe=num_probes, sel=self.selected)
        parameters = faiss.IndexRefineSearchParameters(k_factor=self.candidates, base_index_params=lists)
        found, rows = self.index.search(asked, k, params=parameters)
        few = (rows < 0).any(axis=1)
        if few.any() and num_probes < self.lists.nlist:
            found[few], rows[few] = self._probe(asked[few], k, 2 * num_probes)
        return found, rows

    def _set_rows(self, rows: Int[np.ndarray, " R"], num_samples: int) -> None:
        """Find only these rows, and probe as few lists as the recall allows; half of them if fewer do not reach it."""
        selected = np.zeros(len(self.vectors), dtype=bool)
        selected[rows] = True
        self.rows, self.selected = rows, faiss.IDSelectorBitmap(np.packbits(selected, bitorder="little"))
        sample, k = self.rng.choice(rows, min(num_samples, len(rows)), replace=False), min(self.k, len(rows))
        asked = self.vectors[sample].astype(np.float32)
        exact = Flat(self.vectors, metric=self.metric, rows=rows).search(asked, k)[1]

        def lowest(num_probes: int) -> float:
            """The mean recall less two standard errors."""
            found = self._probe(asked, k, num_probes)[1]
            shares = [np.isin(*pair).mean() for pair in zip(exact, found, strict=True)]
            return float(np.mean(shares) - 2 * np.std(shares, ddof=1) / len(shares) ** 0.5)

        half = -(-self.lists.nlist // 2)
        for self.candidates in CANDIDATES:
            self.num_probes = 1 + bisect_left(range(1, half), self.recall, key=lowest)
            if self.num_probes < half:
                break
        logger.info(
            "%d vectors in %d lists, %d probed, %d candidates: recall@%d at least %.3f on a sample of %d",
            len(rows), self.lists.nlist, self.num_probes, self.candidates * k, k, lowest(self.num_probes), len(sample),
        )  # fmt: skip


def lists_of(vectors: Float[np.ndarray, "V D"], metric: str, rng: np.random.Generator) -> faiss.IndexIVFRaBitQ:
    """The lists of codes, one list per center of k-means on a sample of the vectors."""
    num_lists = round(len(vectors) ** 0.5)
    lists = faiss.index_factory(vectors.shape[1], f"IVF{num_lists},RaBitQ", FAISS_METRICS[metric])
    lists.qb = QUERY_BITS
    lists.cp.niter, lists.cp.seed, lists.cp.min_points_per_centroid = ITERATIONS, int(rng.integers(2**31)), 1
    lists.cp.spherical = False  # a code is of the difference to the center, so centers are as long as the vectors
    sample = rng.choice(len(vectors), min(len(vectors), num_lists * POINTS_PER_LIST), replace=False)
    lists.train(vectors[np.sort(sample)].astype(np.float32))
    for begin in range(0, len(vectors), VECTORS_CHUNK):
        lists.add(vectors[begin : begin + VECTORS_CHUNK].astype(np.float32))
    return lists


def view_of(vectors: Float[np.ndarray, "V D"], metric: str) -> faiss.IndexFlatCodes:
    """FAISS's index of the exact vectors, without a copy of them."""
    view = faiss.index_factory(vectors.shape[1], FAISS_FORMATS[vectors.dtype.name], FAISS_METRICS[metric])
    view.codes = faiss.MaybeOwnedVectorUInt8.create_view(
        faiss.swig_ptr(vectors.view(np.uint8)), vectors.nbytes, view.codes.owner
    )
    view.ntotal = len(vectors)
    return view
