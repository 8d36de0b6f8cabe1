"""How many lists a search probes, and how many candidates it takes from them."""

import numpy as np
import pytest

from mmpt_plugin.index import lists
from mmpt_plugin.index.flat import Flat
from mmpt_plugin.index.lists import InvertedLists

K = 8


def smooth(width=64):
    """1024 vectors in three dimensions without groups, so that every further list finds a few neighbours more."""
    rng = np.random.default_rng(0)
    return (rng.standard_normal((1024, 3)) @ rng.standard_normal((3, width))).astype(np.float16)


@pytest.fixture(autouse=True)
def measured_with_all(monkeypatch):
    monkeypatch.setattr(lists, "SAMPLE", 1024)


def lowest(index, num_probes):
    """The mean recall less two standard errors. Of 1024 vectors and 8 neighbours it is the same in any order."""
    index.num_probes = num_probes
    exact, found = Flat(index.vectors).search(index.vectors, K)[1], index.search(index.vectors, K)[1]
    shares = [len(np.intersect1d(a, b)) / K for a, b in zip(found, exact, strict=True)]
    return float(np.mean(shares) - 2 * np.std(shares, ddof=1) / 1024**0.5)


def test_the_fewest_lists_with_the_wanted_recall_are_probed():
    """Two standard errors are deducted; a recall that is just met is enough."""
    vectors = smooth()
    first = InvertedLists(vectors, k=K, recall=0.5)
    reached = [lowest(first, num_probes) for num_probes in (1, 2, 3, 4, 5)]
    assert reached == sorted(reached)
    assert first.candidates == 4
    for number, recall in enumerate(reached, 1):
        assert InvertedLists(vectors, k=K, recall=recall).num_probes == number
        assert InvertedLists(vectors, k=K, recall=recall + 1e-9).num_probes == number + 1


def test_more_candidates_are_taken_where_a_few_do_not_reach_the_recall(monkeypatch):
    """Codes of eight dimensions have eight bits."""
    index = InvertedLists(smooth(width=8), k=K, recall=0.9)
    assert index.candidates == 16
    assert index.or_flat() is index
    assert lowest(index, index.num_probes) >= 0.9
    monkeypatch.setattr(lists, "CANDIDATES", (4,))
    assert isinstance(InvertedLists(smooth(width=8), k=K, recall=0.9).or_flat(), Flat)


def test_further_lists_are_probed_until_k_vectors_are_met():
    """Also if only some queries' lists hold fewer."""
    index = InvertedLists(smooth(), k=K, recall=0.01)
    assert index.num_probes == 1
    sizes = [index.lists.get_list_size(number) for number in range(index.lists.nlist)]
    k = int(np.median(sizes))
    assert min(sizes) < k < max(sizes)
    found = index.search(index.vectors, k)[1]
    assert (found >= 0).all()
    assert all(len(set(rows)) == k for rows in found.tolist())


@pytest.mark.parametrize("metric", ["inner_product", "l2"])
def test_all_vectors_are_found_and_the_rest_is_marked(metric):
    index = InvertedLists(smooth(), k=K, metric=metric, recall=0.01)
    scores, rows = index.search(index.vectors[:3], 1030)
    assert (np.sort(rows, axis=1) == [-1] * 6 + list(range(1024))).all()
    assert (rows[:, -6:] == -1).all()
    assert (scores[:, -6:] == -np.inf).all()
    assert np.isfinite(scores[:, :-6]).all()


@pytest.mark.parametrize(("num_probes", "spares"), [(15, True), (16, False)])
def test_lists_that_must_be_probed_by_half_are_not_worth_it(num_probes, spares):
    index = InvertedLists(smooth(), k=K, recall=0.5)
    index.num_probes = num_probes
    assert isinstance(index.or_flat(), InvertedLists) == spares


@pytest.mark.parametrize("num_vectors", [1024, 961])
def test_a_recall_that_fewer_than_half_of_the_lists_do_not_reach_needs_the_exact_search(num_vectors):
    """Of an even and of an odd number of lists."""
    noise = np.random.default_rng(0).standard_normal((num_vectors, 64)).astype(np.float16)
    assert isinstance(InvertedLists(noise, k=K).or_flat(), Flat)
