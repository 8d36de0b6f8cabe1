"""Ranks worked by hand and recorded, ties against the model, several right candidates, and chance."""

import tracemalloc

import numpy as np
import pytest

from mmpt_plugin.metrics import retrieval
from mmpt_plugin.metrics.retrieval import captions_of, chance, ranks, summary


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


@pytest.mark.parametrize("case", [f"{size}_{kind}" for size in range(4) for kind in ("plain", "signal", "f16")])
def test_recalls_and_median_are_the_originals_where_no_scores_tie(recorded, expected, case):
    scores = recorded[f"retr_{case}"].astype(np.float64)
    values = summary(ranks(scores, np.eye(len(scores)), np.arange(len(scores))), prefix="t2v")
    original = expected[f"retr_{case}"]
    assert [values[f"t2v_recall@{k}"] for k in (1, 5, 10)] == pytest.approx([original[f"R{k}"] for k in (1, 5, 10)])
    assert values["t2v_median_rank"] == original["MR"]


@pytest.mark.parametrize("size", range(1, 4))
def test_where_scores_tie_the_original_scores_higher(recorded, expected, size):
    """It takes each equal score for a further query with a rank of its own (docs/fidelity.md)."""
    scores = recorded[f"retr_{size}_ties"].astype(np.float64)
    values = summary(ranks(scores, np.eye(len(scores)), np.arange(len(scores))), prefix="t2v")
    assert values["t2v_recall@1"] < expected[f"retr_{size}_ties"]["R1"]
    assert values["t2v_median_rank"] > expected[f"retr_{size}_ties"]["MR"]


def test_equal_scores_get_nothing_where_the_original_gives_a_fifth(recorded, expected):
    scores = recorded["retr_allequal"].astype(np.float64)
    assert summary(ranks(scores, np.eye(5), np.arange(5)), prefix="t2v")["t2v_recall@1"] == 0
    assert expected["retr_allequal"]["R1"] == pytest.approx(0.2)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("width", [3, 32, 385, 768])
@pytest.mark.parametrize("num_queries", [1, 5, 17])
def test_identical_candidates_tie_wherever_they_stand(num_queries, width, dtype):
    """A matrix product of these shapes gives identical rows different scores."""
    rng = np.random.default_rng(width)
    queries = rng.standard_normal((num_queries, width)).astype(dtype)
    candidates = np.repeat(rng.standard_normal((1, width)).astype(dtype), 23, axis=0)
    right = np.arange(num_queries)
    assert ranks(queries, candidates, right).tolist() == [23] * num_queries


def test_candidates_tie_that_differ_only_where_the_query_is_zero():
    rng = np.random.default_rng(0)
    queries, candidates = rng.standard_normal((7, 385)), np.repeat(rng.standard_normal((1, 385)), 23, axis=0)
    queries[:, 100], candidates[:, 100] = 0, rng.standard_normal(23)
    queries, candidates = queries.astype(np.float32), candidates.astype(np.float32)
    assert ranks(queries, candidates, np.arange(7)).tolist() == [23] * 7


@pytest.mark.parametrize("block", [1, 2, 7, 40])
def test_blocks_change_nothing_where_scores_nearly_tie(block):
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((40, 96)).astype(np.float32)
    candidates = (queries[:1] + 1e-7 * rng.integers(0, 3, (40, 96))).astype(np.float32)
    right = rng.permutation(40)
    np.testing.assert_array_equal(ranks(queries, candidates, right, block=block), ranks(queries, candidates, right))


def test_infinite_scores_keep_their_order():
    candidates = np.array([[np.inf], [1.0], [-np.inf]])
    assert ranks(np.ones((3, 1)), candidates, np.arange(3)).tolist() == [1, 2, 3]


def test_a_wrong_candidate_whose_score_is_no_number_stands_above():
    assert ranks(np.ones((1, 1)), np.array([[np.nan], [1.0]]), np.array([1])).tolist() == [2]


def test_half_precision_embeddings_are_not_rounded_again():
    """1 + 2^-12 lies between two half-precision numbers."""
    candidates = np.array([[1, 2**-12], [1, 0]], dtype=np.float16)
    assert ranks(np.ones((1, 2), dtype=np.float16), candidates, np.array([0])).tolist() == [1]


@pytest.mark.parametrize("block", [50, None])
def test_memory_is_bounded_by_the_block(monkeypatch, block):
    monkeypatch.setattr(retrieval, "SCORES_AT_ONCE", 50 * 2000)
    queries = np.random.default_rng(0).standard_normal((2000, 4)).astype(np.float32)
    tracemalloc.start()
    ranks(queries, queries[::-1], np.arange(2000), block=block)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2000 * 2000 * queries.itemsize / 4


def test_of_several_right_candidates_the_best_one_counts_among_the_wrong_ones():
    """Scores 5 4 3 2 1: of 2nd and 4th the 2nd counts; of 1st and 2nd the 1st; of 4th and 5th, three are above."""
    scores = np.tile([5.0, 4, 3, 2, 1], (4, 1))
    right = np.array([[3, 1, -1], [0, 1, -1], [4, 3, -1], [0, 2, 4]])
    assert ranks(scores, np.eye(5), right).tolist() == [2, 1, 4, 1]


def test_a_tie_of_two_right_candidates_does_not_count_against_the_model():
    assert ranks(np.array([[2.0, 2, 1]]), np.eye(3), np.array([[0, 1]])).tolist() == [1]
    assert ranks(np.array([[2.0, 2, 2]]), np.eye(3), np.array([[0, 1]])).tolist() == [2]


def test_right_candidates_whose_scores_are_no_numbers_rank_last():
    candidates = np.array([[np.nan], [np.nan], [1.0], [2.0]])
    assert ranks(np.ones((2, 1)), candidates, np.array([[0, 1], [0, 3]])).tolist() == [3, 2]


def test_captions_of_each_video_in_their_order():
    captions = captions_of(np.array([1, 0, 1, 2, 1]), num_videos=3)
    assert captions.tolist() == [[1, -1, -1], [0, 2, 4], [3, -1, -1]]


def test_a_caption_of_no_video_is_named():
    with pytest.raises(ValueError, match="caption 1 is of video 2, and videos are 0 to 1"):
        captions_of(np.array([0, 2]), num_videos=2)


@pytest.mark.parametrize(
    ("right", "trouble"),
    [
        ([[0], [3]], r"query 1 names a right candidate outside 0 to 2: \[3\]"),
        ([[0], [-1]], r"query 1 has no right candidate"),
        ([[0, 1], [2, 2]], r"query 1 names a right candidate twice"),
    ],
)
def test_right_candidates_that_cannot_be_are_named(right, trouble):
    with pytest.raises(ValueError, match=trouble):
        ranks(np.ones((2, 3)), np.eye(3), np.array(right))


def test_nothing_to_rank_is_an_error():
    with pytest.raises(ValueError, match="0 queries"):
        ranks(np.ones((0, 3)), np.eye(3), np.zeros(0, dtype=int))


def test_chance_with_several_right_is_what_random_embeddings_score():
    rng = np.random.default_rng(0)
    video = np.repeat(np.arange(30), np.arange(30) % 3 + 1)
    right = captions_of(video, num_videos=30)
    shapes = (30, 16), (len(video), 16)
    drawn = [ranks(*(rng.standard_normal(shape) for shape in shapes), right) for _ in range(1000)]
    expected = chance(len(video), prefixes=["v2t"], num_right=np.bincount(video))
    measured = summary(np.concatenate(drawn), prefix="v2t")
    assert measured.keys() == expected.keys()
    assert measured == pytest.approx(expected, rel=0.1)


@pytest.mark.parametrize("num_candidates", [1, 2, 5, 60])
def test_chance_of_one_right_candidate_is_in_the_middle(num_candidates):
    values = chance(num_candidates, prefixes=["t2v"])
    assert values["t2v_recall@5"] == pytest.approx(min(5 / num_candidates, 1))
    assert values["t2v_median_rank"] == values["t2v_mean_rank"] == (num_candidates + 1) / 2
