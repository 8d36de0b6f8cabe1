"""The number of lists that a search probes, for recall curves made by hand."""

import numpy as np
import pytest
import torch

from mmpt_plugin.index import lists
from mmpt_plugin.index.lists import InvertedLists


@pytest.fixture
def made(monkeypatch):
    """Four lists of one vector each, asked in their own order; `exact` are the rows nearest to each of four vectors."""

    def make(exact, recall):
        index = object.__new__(InvertedLists)
        index.vectors, index.k, index.metric, index.recall = np.eye(4, dtype=np.float32), 4, "inner_product", recall
        index.rng, index.cells, index.cell_of = np.random.default_rng(0), torch.eye(4), np.arange(4)

        class Exact:
            def __init__(self, *_, **__):
                pass

            def search(self, queries, k):
                return None, np.array(exact)

        monkeypatch.setattr(lists, "Flat", Exact)
        monkeypatch.setattr(InvertedLists, "_probe_order", lambda self, asked: torch.arange(4).repeat(len(asked), 1))
        return index

    return make


@pytest.mark.parametrize(("recall", "probes"), [(0.5, 1), (0.51, 2), (0.75, 2), (0.76, 3), (1.0, 3)])
def test_the_fewest_lists_with_the_wanted_recall_are_probed(made, recall, probes):
    """Of each vector's four neighbours two are in list 0, one in list 1, one in list 2: recall 1/2, 3/4, 1, 1."""
    assert made([[0, 0, 1, 2]] * 4, recall)._tuned(np.arange(4), 4) == probes


@pytest.mark.parametrize(("recall", "probes"), [(0.46, 1), (0.47, 2), (0.73, 2), (0.74, 3)])
def test_two_standard_errors_are_deducted(made, recall, probes):
    """Two vectors have recall 1 at once, two 1/2, 3/4, 1: means 0.75, 0.875, 1, standard errors 0.144, 0.072, 0."""
    assert made([[0, 0, 0, 0]] * 2 + [[0, 0, 1, 2]] * 2, recall)._tuned(np.arange(4), 4) == probes


def test_further_lists_are_probed_until_k_vectors_are_met(made):
    """Lists of 1, 2, 3 and 1 vectors: the first two hold 3."""
    index = made([[0]], 0.5)
    index.sizes, index.num_probes = torch.tensor([1, 2, 3, 1]), 1
    queries = torch.zeros(1, 4)
    assert [index._probes(queries, k)[1].tolist() for k in (1, 2, 3, 4)] == [[0], [0, 1], [0, 1], [0, 1, 2]]
    index.num_probes = 3
    assert index._probes(queries, 1)[1].tolist() == [0, 1, 2]


@pytest.mark.parametrize(("num_probes", "spares"), [(1, True), (2, False)])
def test_lists_that_must_be_probed_by_half_are_not_worth_it(monkeypatch, num_probes, spares):
    index = object.__new__(InvertedLists)
    index.vectors, index.metric, index.cells = np.eye(4, dtype=np.float32), "inner_product", torch.eye(4)
    index.lists, index.num_probes = [torch.tensor([row]) for row in range(4)], num_probes
    assert isinstance(index.or_flat(), InvertedLists) == spares
