"""Ranks by meaning, worked by hand and by counting, and what a random order is expected to find."""

import itertools

import numpy as np
import pytest

from mmpt_plugin.metrics import meaning as module
from mmpt_plugin.metrics.meaning import meaning_ranks, random_order_metrics
from mmpt_plugin.metrics.retrieval import best_member_ranks, ranks, retrieval_chance, retrieval_metrics


def by_scores(scores: list[list[float]], *, wanted: list[int], meaning: list[int]) -> list[int]:
    """The ranks where query i has these scores with the candidates."""
    group = np.arange(len(meaning))
    return meaning_ranks(
        np.array(scores, float), np.eye(len(meaning)), group, wanted=np.array(wanted), meaning=np.array(meaning)
    ).tolist()


def test_the_rank_is_that_of_the_best_candidate_of_the_wanted_meaning():
    """Candidates 0 and 2 mean the same. Query 0: candidate 1 is above the better of both; query 1: none is."""
    assert by_scores([[1, 4, 3, 2], [5, 4, 3, 6]], wanted=[0, 2], meaning=[0, 1, 0, 2]) == [2, 1]


def test_ties_count_against_the_query_between_meanings_but_not_within_one():
    assert by_scores([[1, 1, 1, 0], [1, 1, 1, 1]], wanted=[0, 0], meaning=[0, 1, 0, 0]) == [2, 2]
    assert by_scores([[1, 1, 1, 1]], wanted=[7], meaning=[7, 7, 7, 7]) == [1]


def test_a_score_that_is_not_a_number_does_not_find_its_meaning():
    """The other candidate of the meaning still does; if all are NaN, only their own meaning is not above."""
    nan = float("nan")
    queries = np.array([[1.0], [nan]])
    candidates = np.array([[nan], [2.0], [1.0], [3.0]])
    found = meaning_ranks(queries, candidates, np.arange(4), wanted=np.array([0, 0]), meaning=np.array([0, 0, 1, 1]))
    assert found.tolist() == [2, 3]


@pytest.mark.parametrize("pairs_chunk", [1, 7, 2**18])
def test_ranks_are_those_counted_one_by_one(monkeypatch, pairs_chunk):
    """With several members a candidate, in several chunks."""
    monkeypatch.setattr(module, "PAIRS_CHUNK", pairs_chunk)
    rng = np.random.default_rng(0)
    queries, members = rng.integers(-2, 3, (40, 3)).astype(float), rng.integers(-2, 3, (50, 3)).astype(float)
    group = rng.permutation(np.concatenate([np.arange(20), rng.integers(0, 20, 30)]))
    meaning = rng.permutation(np.arange(20) % 6)
    wanted = rng.integers(0, 6, 40)
    scores = np.array([[(queries[q] @ members[group == g].T).max() for g in range(20)] for q in range(40)])
    expected = [
        1 + int((scores[q, meaning != wanted[q]] >= scores[q, meaning == wanted[q]].max()).sum()) for q in range(40)
    ]
    assert meaning_ranks(queries, members, group, wanted=wanted, meaning=meaning).tolist() == expected


def test_where_each_candidate_means_something_else_ranks_are_plain_ones():
    rng = np.random.default_rng(1)
    text, video = rng.integers(-2, 3, (30, 4)).astype(float), rng.integers(-2, 3, (20, 4)).astype(float)
    right = rng.permutation(np.concatenate([np.arange(20), rng.integers(0, 20, 10)]))
    every = np.arange(20)
    t2v = meaning_ranks(text, video, every, wanted=right, meaning=every)
    v2t = meaning_ranks(video, text, right, wanted=every, meaning=every)
    np.testing.assert_array_equal(t2v, ranks(text, video, right))
    np.testing.assert_array_equal(v2t, best_member_ranks(video, text, right))


def test_equal_embeddings_tie_wherever_they_stand():
    """A matrix product rounds equal candidates differently; half of them have another meaning, so all are above."""
    rng = np.random.default_rng(2)
    queries = rng.standard_normal((5, 300)).astype(np.float32)
    candidates = np.repeat(rng.standard_normal((1, 300)), 64, axis=0).astype(np.float32)
    meaning = np.arange(64) % 2
    found = meaning_ranks(queries, candidates, np.arange(64), wanted=np.zeros(5, int), meaning=meaning)
    assert found.tolist() == [33] * 5


def test_a_meaning_that_no_candidate_has_is_an_error():
    with pytest.raises(ValueError, match="no candidate has the meaning 3"):
        by_scores([[1, 2]], wanted=[3], meaning=[0, 1])


def test_a_random_order_with_one_right_candidate_by_hand():
    """Of 4 and of 20: recall@k is min(k, n) / n. Ranks 1 to 4 have 1/4 + 1/20 each, so the median is in rank 4."""
    assert random_order_metrics(np.array([4, 20]), np.array([1, 1]), prefix="t2v") == pytest.approx(
        {
            "t2v_recall@1": (1 / 4 + 1 / 20) / 2,
            "t2v_recall@5": (1 + 5 / 20) / 2,
            "t2v_recall@10": (1 + 10 / 20) / 2,
            "t2v_median_rank": 4.0,
            "t2v_mean_rank": (2.5 + 10.5) / 2,
        }
    )


@pytest.mark.parametrize("num_candidates", [1, 2, 9, 10, 11, 444])
def test_a_random_order_of_all_candidates_is_chance(num_candidates):
    sizes = np.full(3, num_candidates)
    expected = retrieval_chance(num_candidates, prefixes=["t2v"])
    assert random_order_metrics(sizes, np.ones(3, int), prefix="t2v") == pytest.approx(expected)


@pytest.mark.parametrize(("num", "right"), [(5, 1), (5, 2), (6, 3), (4, 4), (7, 2)])
def test_a_random_order_is_the_mean_over_all_orders(num, right):
    firsts = np.array([min(places) + 1 for places in itertools.combinations(range(num), right)])
    expected = retrieval_metrics(firsts, prefix="x")
    assert random_order_metrics(np.array([num]), np.array([right]), prefix="x") == pytest.approx(expected)
