"""Ranks worked by hand, ties against the model, and chance."""

import numpy as np
import pytest

from mmpt_plugin.metrics.retrieval import best_member_ranks, chance, ranks, summary


def test_ranks_by_hand():
    """Scores [[3, 1, 2], [5, 4, 6], [0, 0, 1]]: the diagonal is 1st of its row, 3rd, 1st."""
    scores = np.array([[3.0, 1, 2], [5, 4, 6], [0, 0, 1]])
    assert ranks(scores, np.eye(3), np.arange(3)).tolist() == [1, 3, 1]


def test_ties_count_against_the_model():
    """Equal scores everywhere: every right candidate is last."""
    assert ranks(np.ones((4, 2)), np.ones((4, 2)), np.arange(4)).tolist() == [4, 4, 4, 4]


def test_a_score_that_is_no_number_ranks_last():
    queries = np.array([[1.0], [np.nan]])
    assert ranks(queries, np.ones((2, 1)) * [[2.0], [1.0]], np.array([0, 1])).tolist() == [1, 2]


def test_blocks_change_nothing():
    rng = np.random.default_rng(0)
    queries, candidates, right = rng.standard_normal((50, 8)), rng.standard_normal((30, 8)), rng.integers(0, 30, 50)
    whole = ranks(queries, candidates, right)
    np.testing.assert_array_equal(ranks(queries, candidates, right, block=7), whole)
    order = np.argsort(-(queries @ candidates.T), axis=1)
    np.testing.assert_array_equal(whole, np.argmax(order == right[:, None], axis=1) + 1)


def test_summary_by_hand():
    assert summary(np.array([1, 4, 11, 2]), prefix="t2v") == {
        "t2v_recall@1": 0.25,
        "t2v_recall@5": 0.75,
        "t2v_recall@10": 0.75,
        "t2v_median_rank": 3.0,
        "t2v_mean_rank": 4.5,
    }


def test_chance_is_what_random_embeddings_score():
    rng = np.random.default_rng(0)
    drawn = [ranks(rng.standard_normal((60, 16)), rng.standard_normal((60, 16)), np.arange(60)) for _ in range(50)]
    measured, expected = summary(np.concatenate(drawn), prefix="t2v"), chance(60, prefixes=["t2v"])
    assert measured.keys() == expected.keys()
    assert expected["t2v_recall@5"] == pytest.approx(5 / 60)
    for key, value in expected.items():
        assert measured[key] == pytest.approx(value, rel=0.2)


def test_a_group_scores_as_its_best_member():
    """Videos 0 and 1; captions 0 and 2 are video 0's. Video 0 scores [1, 5, 9]: its best, 9, beats 5. Video 1 scores
    [4, 3, 2]: its own 3 is below the other's best, 4."""
    members = np.array([[1.0, 4], [5, 3], [9, 2]])
    group = np.array([0, 1, 0])
    assert best_member_ranks(np.eye(2), members, group).tolist() == [1, 2]
    assert best_member_ranks(np.eye(2), members, group, block=1).tolist() == [1, 2]


def test_with_a_member_a_group_its_ranks_are_plain_ones():
    rng = np.random.default_rng(0)
    queries, members, group = rng.standard_normal((20, 4)), rng.standard_normal((20, 4)), rng.permutation(20)
    expected = ranks(queries, members, np.argsort(group))
    np.testing.assert_array_equal(best_member_ranks(queries, members, group), expected)
