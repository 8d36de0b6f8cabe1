"""Ranks worked by hand and recorded, ties against the model, groups of candidates, and chance."""

import json
import tracemalloc

import numpy as np
import pytest

from mmpt_plugin.metrics import retrieval
from mmpt_plugin.metrics.retrieval import best_member_ranks, ranks, retrieval_chance, retrieval_metrics
from mmpt_plugin.metrics.scores import exact_scores
from tests.metrics.conftest import CLIP_FAMILY


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
    np.testing.assert_array_equal(ranks(queries, candidates, right, chunk_size=7), whole)
    order = np.argsort(-(queries @ candidates.T), axis=1)
    np.testing.assert_array_equal(whole, np.argmax(order == right[:, None], axis=1) + 1)


def test_summary_by_hand():
    assert retrieval_metrics(np.array([1, 4, 11, 2]), prefix="t2v") == {
        "t2v_recall@1": 0.25,
        "t2v_recall@5": 0.75,
        "t2v_recall@10": 0.75,
        "t2v_median_rank": 3.0,
        "t2v_mean_rank": 4.5,
    }


def test_chance_is_what_random_embeddings_score():
    rng = np.random.default_rng(0)
    drawn = [ranks(rng.standard_normal((60, 16)), rng.standard_normal((60, 16)), np.arange(60)) for _ in range(50)]
    measured, expected = retrieval_metrics(np.concatenate(drawn), prefix="t2v"), retrieval_chance(60, prefixes=["t2v"])
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
    assert best_member_ranks(np.eye(2), members, group, chunk_size=1).tolist() == [1, 2]


def test_with_a_member_a_group_its_ranks_are_plain_ones():
    rng = np.random.default_rng(0)
    queries, members, group = rng.standard_normal((20, 4)), rng.standard_normal((20, 4)), rng.permutation(20)
    expected = ranks(queries, members, np.argsort(group))
    np.testing.assert_array_equal(best_member_ranks(queries, members, group), expected)


@pytest.mark.parametrize("case", [f"{size}_{kind}" for size in range(4) for kind in ("plain", "signal", "f16")])
def test_recalls_and_median_are_the_originals_where_no_scores_tie(recorded, expected, case):
    scores = recorded[f"retr_{case}"].astype(np.float64)
    values = retrieval_metrics(ranks(scores, np.eye(len(scores)), np.arange(len(scores))), prefix="t2v")
    original = expected[f"retr_{case}"]
    assert [values[f"t2v_recall@{k}"] for k in (1, 5, 10)] == pytest.approx([original[f"R{k}"] for k in (1, 5, 10)])
    assert values["t2v_median_rank"] == original["MR"]


@pytest.mark.parametrize("size", range(1, 4))
def test_where_scores_tie_the_original_scores_higher(recorded, expected, size):
    """It takes each equal score for a further query with a rank of its own (docs/explanation/fidelity.md)."""
    scores = recorded[f"retr_{size}_ties"].astype(np.float64)
    values = retrieval_metrics(ranks(scores, np.eye(len(scores)), np.arange(len(scores))), prefix="t2v")
    assert values["t2v_recall@1"] < expected[f"retr_{size}_ties"]["R1"]
    assert values["t2v_median_rank"] > expected[f"retr_{size}_ties"]["MR"]


def test_equal_scores_get_nothing_where_the_original_gives_a_fifth(recorded, expected):
    scores = recorded["retr_allequal"].astype(np.float64)
    assert retrieval_metrics(ranks(scores, np.eye(5), np.arange(5)), prefix="t2v")["t2v_recall@1"] == 0
    assert expected["retr_allequal"]["R1"] == pytest.approx(0.2)


# Recorded from CLIP2Video's `logging_rank`, which does the same as CLIP4Clip's metrics.
RECORDED = json.loads((CLIP_FAMILY / "expected.json").read_text())["cases"]
TIES = [name for name, case in RECORDED.items() if case["note"].startswith("bug")]


def both_directions(scores, case):
    """Our ranks and metrics of a recorded matrix, by direction: its rows as texts and unit vectors as videos."""
    num_videos = scores.shape[1]
    group = np.repeat(np.arange(num_videos), case.get("captions", [1] * num_videos))
    videos = np.eye(num_videos)
    ranked = {"t2v": ranks(scores, videos, group), "v2t": best_member_ranks(videos, scores, group)}
    return ranked, {key: retrieval_metrics(of, prefix=key) for key, of in ranked.items()}


@pytest.mark.parametrize("direction", ["t2v", "v2t"])
@pytest.mark.parametrize("name", [name for name in RECORDED if name not in TIES])
def test_metrics_are_clip2video_s_where_no_scores_tie(similarities, name, direction):
    """With one caption per video and with several. The original's recalls of several captions are in float32."""
    case = RECORDED[name]
    ranked, metrics = both_directions(similarities[name], case)
    ours, theirs = metrics[direction], case[direction]
    for k in (1, 5, 10):
        assert 100 * ours[f"{direction}_recall@{k}"] == pytest.approx(theirs[f"R{k}"], abs=1e-5)
    assert ours[f"{direction}_mean_rank"] == pytest.approx(theirs["MeanR"], abs=1e-9)
    if "ranks_from_0" in theirs:
        assert (ranked[direction] - 1).tolist() == theirs["ranks_from_0"]
    # Of several captions per video, the original takes the lower of the two middle ranks in text-to-video retrieval.
    lower = "captions" in case and direction == "t2v"
    assert np.quantile(ranked[direction], 0.5, method="lower" if lower else "linear") == theirs["MedianR"]
    assert ours[f"{direction}_median_rank"] == np.median(ranked[direction])


def test_the_median_of_an_even_number_of_ranks_is_between_the_two_in_the_middle(similarities):
    """34 captions, whose middle ranks are 3 and 4."""
    case = RECORDED["multi/wide"]
    _, metrics = both_directions(similarities["multi/wide"], case)
    assert (metrics["t2v"]["t2v_median_rank"], case["t2v"]["MedianR"]) == (3.5, 3)


@pytest.mark.parametrize("name", TIES)
def test_where_scores_tie_each_query_counts_once_and_ties_count_against_it(similarities, name):
    """CLIP2Video counts such a row several times, or ranks equal scores in the order of a sort."""
    scores, case = similarities[name], RECORDED[name]
    ranked, metrics = both_directions(scores, case)
    group = np.repeat(np.arange(scores.shape[1]), case.get("captions", [1] * scores.shape[1]))
    best = np.stack([scores[group == video].max(axis=0) for video in range(scores.shape[1])])  # (text's video, video)
    assert ranked["t2v"].tolist() == [int((row >= row[own]).sum()) for row, own in zip(scores, group, strict=True)]
    assert ranked["v2t"].tolist() == [int((best[:, own] >= best[own, own]).sum()) for own in range(len(best))]
    if "captions" in case:
        assert all(100 * metrics["t2v"][f"t2v_recall@{k}"] <= case["t2v"][f"R{k}"] + 1e-5 for k in (1, 5, 10))
        assert metrics["t2v"]["t2v_mean_rank"] > case["t2v"]["MeanR"]


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


@pytest.mark.parametrize("chunk_size", [1, 2, 7, 40])
def test_blocks_change_nothing_where_scores_nearly_tie(chunk_size):
    rng = np.random.default_rng(0)
    queries = rng.standard_normal((40, 96)).astype(np.float32)
    candidates = (queries[:1] + 1e-7 * rng.integers(0, 3, (40, 96))).astype(np.float32)
    right = rng.permutation(40)
    np.testing.assert_array_equal(
        ranks(queries, candidates, right, chunk_size=chunk_size), ranks(queries, candidates, right)
    )


SHAPES = [(videos, each, width) for videos in (1, 2, 5, 17, 40) for each in (1, 3) for width in (3, 32, 385, 768)]


@pytest.mark.parametrize(("num_videos", "each", "width"), SHAPES)
def test_equal_groups_tie_wherever_they_are(num_videos, each, width):
    """All embeddings equal: every video is last, in blocks of every size, and every text too."""
    rng = np.random.default_rng(width)
    videos = np.repeat(rng.standard_normal((1, width)).astype(np.float32), num_videos, axis=0)
    texts = np.repeat(rng.standard_normal((1, width)).astype(np.float32), num_videos * each, axis=0)
    group = rng.permutation(np.repeat(np.arange(num_videos), each))
    for chunk_size in (1, 2, 3, 7, None):
        assert set(best_member_ranks(videos, texts, group, chunk_size=chunk_size)) == {num_videos}
        assert set(ranks(texts, videos, group, chunk_size=chunk_size)) == {num_videos}


@pytest.mark.parametrize("num_videos", range(2, 40, 3))
def test_equal_candidates_tie_whatever_their_length(num_videos):
    """What a product may err grows with the length of the longer vectors, not of the queries alone."""
    rng = np.random.default_rng(num_videos)
    queries = rng.standard_normal((num_videos, 385)).astype(np.float32)
    candidates = np.repeat(1e5 * rng.standard_normal((1, 385)).astype(np.float32), num_videos, axis=0)
    right = np.arange(num_videos)
    assert set(ranks(queries, candidates, right)) == set(best_member_ranks(queries, candidates, right)) == {num_videos}


@pytest.mark.parametrize(("num_videos", "each", "width"), SHAPES)
def test_ranks_of_duplicates_are_those_of_scores_summed_alike(num_videos, each, width):
    """Texts and videos that occur several times, against a plain comparison of exact scores."""
    rng = np.random.default_rng(width)
    few = rng.standard_normal((max(1, num_videos // 3), width)).astype(np.float32)
    videos = few[rng.integers(0, len(few), num_videos)]
    texts = few[rng.integers(0, len(few), num_videos * each)]
    group = rng.permutation(np.repeat(np.arange(num_videos), each))
    scores = exact_scores(videos[:, None], texts)  # (V, Q)
    best = np.stack([scores[:, group == video].max(axis=1) for video in range(num_videos)], axis=1)
    v2t = (best >= np.diag(best)[:, None]).sum(axis=1)
    t2v = (scores[group, np.arange(len(texts))][:, None] <= scores.T).sum(axis=1)
    for chunk_size in (1, 3, None):
        np.testing.assert_array_equal(best_member_ranks(videos, texts, group, chunk_size=chunk_size), v2t)
        np.testing.assert_array_equal(ranks(texts, videos, group, chunk_size=chunk_size), t2v)


def test_a_group_with_a_score_that_is_no_number_counts_as_above():
    """Video 0 scores [1, nan] with the groups, video 1 [2, nan]: its own score is NaN, so it ranks last."""
    videos, texts = np.array([[1.0], [2.0]]), np.array([[1.0], [np.nan], [5.0]])
    assert best_member_ranks(videos, texts, np.array([0, 1, 1])).tolist() == [2, 2]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ([0, 1, 3], "member 2: group 3 is not one of 0 to 2"),
        ([0, -1, 2], "member 1: group -1 is not one of 0 to 2"),
        ([0, 0, 2], "group 1 has no member"),
    ],
)
def test_groups_that_cannot_be_are_named(group, message):
    with pytest.raises(ValueError, match=message):
        best_member_ranks(np.eye(3), np.eye(3), np.array(group))
    with pytest.raises(ValueError, match="0 queries"):
        best_member_ranks(np.eye(3)[:0], np.eye(3)[:0], np.zeros(0, dtype=int))


def test_a_groups_memory_is_bounded_by_the_block_where_all_scores_tie(monkeypatch):
    monkeypatch.setattr(retrieval, "SCORES_CHUNK", 50 * 4000)
    videos, texts = np.ones((1000, 4), dtype=np.float32), np.ones((4000, 4), dtype=np.float32)
    tracemalloc.start()
    ranked = best_member_ranks(videos, texts, np.arange(4000) % 1000)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert (ranked == 1000).all()
    assert peak < 1000 * 4000 * 4 / 4


def test_infinite_scores_keep_their_order():
    candidates = np.array([[np.inf], [1.0], [-np.inf]])
    assert ranks(np.ones((3, 1)), candidates, np.arange(3)).tolist() == [1, 2, 3]


def test_a_wrong_candidate_whose_score_is_no_number_stands_above():
    assert ranks(np.ones((1, 1)), np.array([[np.nan], [1.0]]), np.array([1])).tolist() == [2]


def test_half_precision_embeddings_are_not_rounded_again():
    """1 + 2^-12 lies between two half-precision numbers."""
    candidates = np.array([[1, 2**-12], [1, 0]], dtype=np.float16)
    assert ranks(np.ones((1, 2), dtype=np.float16), candidates, np.array([0])).tolist() == [1]


@pytest.mark.parametrize("chunk_size", [50, None])
def test_memory_is_bounded_by_the_block(monkeypatch, chunk_size):
    monkeypatch.setattr(retrieval, "SCORES_CHUNK", 50 * 2000)
    queries = np.random.default_rng(0).standard_normal((2000, 4)).astype(np.float32)
    tracemalloc.start()
    ranks(queries, queries[::-1], np.arange(2000), chunk_size=chunk_size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 2000 * 2000 * queries.itemsize / 4


@pytest.mark.parametrize("wrong", [3, -1])
def test_a_right_candidate_that_cannot_be_is_named(wrong):
    with pytest.raises(ValueError, match=rf"query 1: target {wrong} is not a candidate of 0 to 2"):
        ranks(np.ones((2, 3)), np.eye(3), np.array([0, wrong]))


def test_nothing_to_rank_is_an_error():
    with pytest.raises(ValueError, match="0 queries"):
        ranks(np.ones((0, 3)), np.eye(3), np.zeros(0, dtype=int))


@pytest.mark.parametrize("num_candidates", [1, 2, 5, 60])
def test_chance_of_one_right_candidate_is_in_the_middle(num_candidates):
    values = retrieval_chance(num_candidates, prefixes=["t2v"])
    assert values["t2v_recall@5"] == pytest.approx(min(5 / num_candidates, 1))
    assert values["t2v_median_rank"] == values["t2v_mean_rank"] == (num_candidates + 1) / 2
