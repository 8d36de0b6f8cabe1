"""Nearest neighbours, exact and in inverted lists."""

import faiss
import numpy as np
import pytest
import torch

from mmpt_plugin.index import build, build_index
from mmpt_plugin.index.flat import METRICS, Flat
from mmpt_plugin.index.lists import InvertedLists


def by_hand(vectors, queries, k, metric):
    """The k nearest by sorting everything."""
    if metric == "l2":
        return np.argsort(((queries[:, None] - vectors) ** 2).sum(-1), axis=1)[:, :k]
    return np.argsort(-(queries @ vectors.T), axis=1)[:, :k]


def grouped(num_groups, each, *, width=16, seed=0):
    """Vectors around num_groups places, those of a group one after the other."""
    rng = np.random.default_rng(seed)
    places = rng.standard_normal((num_groups, width))
    return (np.repeat(places, each, axis=0) + 0.3 * rng.standard_normal((num_groups * each, width))).astype(np.float16)


def recall(found, exact):
    return np.mean([len(np.intersect1d(a, b)) / len(b) for a, b in zip(found, exact, strict=True)])


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_flat_search_is_exact(metric, dtype, monkeypatch):
    """In blocks smaller than the data, of both vectors and queries."""
    monkeypatch.setattr("mmpt_plugin.index.flat.VECTORS_CHUNK", 70)
    monkeypatch.setattr("mmpt_plugin.index.flat.QUERIES_CHUNK", 3)
    rng = np.random.default_rng(0)
    vectors, queries = (rng.standard_normal((n, 16)).astype(dtype) for n in (200, 7))
    exact = by_hand(vectors.astype(float), queries.astype(float), 9, metric)
    np.testing.assert_array_equal(Flat(vectors, metric=metric).search(queries, 9)[1], exact)


def test_scores_are_inner_products_and_order_distances():
    """Of (3, 4) with (1, 0), (0, 2): 3 and 8; for l2 less half the squared length, 3 - 1/2 and 8 - 2."""
    vectors, queries = np.float32([[1, 0], [0, 2]]), np.float32([[3, 4]])
    assert Flat(vectors).search(queries, 2)[0].tolist() == [[8, 3]]
    assert Flat(vectors, metric="l2").search(queries, 2)[0].tolist() == [[6, 2.5]]


def test_fewer_vectors_than_neighbours_are_marked():
    found = Flat(np.eye(4, dtype=np.float32)).only(np.array([1, 3])).search(np.float32([[0, 0, 0, 1]]), 3)[1]
    assert found.tolist() == [[3, 1, -1]]


@pytest.mark.parametrize("metric", METRICS)
def test_lists_find_the_wanted_share_of_the_neighbours(metric):
    vectors = grouped(200, 20)
    queries = vectors[::7]
    lists = InvertedLists(vectors, k=10, metric=metric)
    exact = Flat(vectors, metric=metric).search(queries, 10)[1]
    assert recall(lists.search(queries, 10)[1], exact) >= 0.95
    assert lists.num_probes < lists.lists.nlist / 3


def test_a_higher_floor_probes_more_lists():
    vectors = grouped(200, 20)
    few, many = (InvertedLists(vectors, k=10, recall=floor) for floor in (0.5, 0.98))
    assert few.num_probes < many.num_probes
    exact = Flat(vectors).search(vectors[::7], 10)[1]
    assert recall(many.search(vectors[::7], 10)[1], exact) >= 0.98


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_a_search_of_all_lists_and_candidates_is_exact(metric, dtype, monkeypatch):
    """With the scores of the exact search; the vectors are encoded in pieces."""
    monkeypatch.setattr("mmpt_plugin.index.lists.VECTORS_CHUNK", 70)
    vectors = grouped(50, 20).astype(dtype)
    lists = InvertedLists(vectors, k=10, metric=metric)
    lists.num_probes, lists.candidates = lists.lists.nlist, 100
    scores, exact = Flat(vectors, metric=metric).search(vectors[::9], 10)
    found_scores, found = lists.search(vectors[::9], 10)
    np.testing.assert_array_equal(found, exact)
    np.testing.assert_allclose(found_scores, scores, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [np.float16, np.float32])
def test_lists_score_with_the_array_itself(dtype):
    """The vectors are not copied."""
    vectors = grouped(50, 20).astype(dtype)
    lists, queries = InvertedLists(vectors, k=10), vectors[:3].copy()
    before = lists.search(queries, 1)[0]
    vectors *= 2
    np.testing.assert_allclose(lists.search(queries, 1)[0], 2 * before)


def test_vectors_that_only_a_copy_could_index_are_refused():
    with pytest.raises(ValueError, match="not C-contiguous"):
        InvertedLists(grouped(50, 20)[::2], k=10)


@pytest.mark.parametrize("metric", METRICS)
def test_the_scale_of_the_vectors_does_not_matter(metric):
    lists = [InvertedLists(scale * grouped(200, 20).astype(np.float32), k=10, metric=metric) for scale in (0.01, 100)]
    small, large = ((one.num_probes, one.candidates) for one in lists)
    assert small == large


def test_faiss_uses_as_many_threads_as_torch(monkeypatch):
    """Set for both, because whether they share their threads depends on the builds, and on which is imported first."""
    numbers = []
    monkeypatch.setattr(faiss, "omp_set_num_threads", numbers.append)
    InvertedLists(grouped(50, 20), k=10)
    assert numbers == [torch.get_num_threads()]


def test_recall_is_logged(caplog):
    caplog.set_level("INFO")
    InvertedLists(grouped(50, 20), k=10)
    assert "recall@10 at least 0.9" in caplog.text


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("index", [Flat, InvertedLists])
def test_only_some_rows_are_found(index, metric, monkeypatch):
    monkeypatch.setattr("mmpt_plugin.index.lists.FEW", 100)
    vectors = grouped(50, 20)
    rows = np.arange(1, 1000, 2)
    options = {} if index is Flat else {"k": 10, "recall": 0.98}
    fewer = index(vectors, metric=metric, **options).only(rows)
    assert isinstance(fewer, index)
    exact = rows[by_hand(vectors[rows].astype(float), vectors[::25].astype(float), 10, metric)]
    found = fewer.search(vectors[::25], 10)[1]
    assert np.isin(found, rows).all()
    assert recall(found, exact) >= 0.95


def test_the_index_suits_the_vectors(monkeypatch):
    """Exact for few vectors, for recall 1, and where there is no structure that lists could use."""
    monkeypatch.setattr(build, "FEW", 500)
    vectors = grouped(50, 20)
    noise = np.random.default_rng(0).standard_normal((1000, 64)).astype(np.float16)
    assert isinstance(build_index(vectors, k=10), InvertedLists)
    assert isinstance(build_index(vectors[:500], k=10), Flat)
    assert isinstance(build_index(vectors, k=10, recall=1.0), Flat)
    assert isinstance(build_index(noise, k=10), Flat)


def test_an_unknown_metric_is_refused():
    with pytest.raises(ValueError, match="no metric 'cosine'. Possible: \\['inner_product', 'l2'\\]"):
        build_index(np.eye(4), k=2, metric="cosine")
