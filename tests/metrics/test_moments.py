"""DiDeMo's measures against the recordings and by hand."""

import numpy as np
import pytest

from mmpt_plugin.metrics.moments import MOMENTS, moments, moments_chance

PLACE = {tuple(moment): place for place, moment in enumerate(MOMENTS.tolist())}


def score(*rankings):
    """Scores that rank moments in the order given, and which of them are possible."""
    scores = np.full((len(rankings), len(MOMENTS)), np.nan)
    for row, ranking in zip(scores, rankings, strict=True):
        for rank, moment in enumerate(ranking):
            row[PLACE[tuple(moment)]] = -rank
    return np.nan_to_num(scores), ~np.isnan(scores)


def test_candidates_stand_in_the_originals_order(expected):
    assert MOMENTS.tolist() == expected["didemo_segment_order"]


def test_metrics_are_the_originals(expected):
    scores, possible = score(*expected["didemo_pred"])
    values = moments(scores, np.array([truth["times"] for truth in expected["didemo_gt"]]), possible)
    recorded = expected["didemo"]
    assert values == pytest.approx({"rank@1": recorded["rank1"], "rank@5": recorded["rank5"], "miou": recorded["miou"]})


def test_the_annotator_who_agrees_least_is_left_out():
    scores, possible = score([(1, 1), (1, 2), (3, 5)])
    values = moments(scores, np.array([[[1, 1], [1, 1], [3, 5], [1, 1]]]), possible)
    assert values == {"rank@1": 1.0, "rank@5": 1.0, "miou": 1.0}


def test_overlap_counts_whole_chunks():
    """(1, 2) shares one chunk of three with (2, 3), two of three with (1, 3), none with (5, 5)."""
    scores, possible = score([(1, 2)])
    values = moments(scores, np.array([[[2, 3], [1, 3], [1, 3], [5, 5]]]), possible)
    assert values["miou"] == pytest.approx((1 / 3 + 2 / 3 + 2 / 3) / 3)


def test_an_annotation_that_is_not_possible_leaves_the_rest_to_decide():
    scores, possible = score([(0, 0), (1, 1)], [(0, 0), (1, 1)])
    values = moments(scores, np.array([[[0, 0], [5, 5], [5, 5], [5, 5]], [[5, 5]] * 4]), possible)
    assert (values["rank@1"], values["rank@5"]) == (0.5, 0.5)


def test_a_sentence_without_a_possible_moment_is_a_miss():
    scores, _ = score([(0, 0)])
    values = moments(scores, np.array([[[0, 0]] * 4]), np.zeros((1, 21), dtype=bool))
    assert values == {"rank@1": 0.0, "rank@5": 0.0, "miou": 0.0}


def test_ties_count_against_the_model():
    scores = np.zeros((1, 21))
    values = moments(scores, np.array([[[0, 0]] * 4]), np.ones((1, 21), dtype=bool))
    assert values == {"rank@1": 0.0, "rank@5": 0.0, "miou": 0.0}


def test_scores_that_are_no_numbers_count_against_the_model():
    scores = np.where(np.arange(21) == 3, np.nan, np.arange(21.0))[None]
    values = moments(scores, np.array([[[4, 5]] * 4]), np.ones((1, 21), dtype=bool))
    assert values == {"rank@1": 0.0, "rank@5": 1.0, "miou": 0.0}


def test_chance_lies_near_the_papers():
    """One moment in 21 is right where annotators agree; five are among the first five."""
    values = moments_chance(np.array([[[2, 2]] * 4] * 50), np.ones((50, 21), dtype=bool), rng=np.random.default_rng(0))
    assert values["rank@1"] == pytest.approx(1 / 21, rel=0.2)
    assert values["rank@5"] == pytest.approx(5 / 21, rel=0.1)


@pytest.mark.parametrize("wrong", [[3, 2], [0, 6], [-1, 0]])
def test_a_stretch_that_is_none_is_named(wrong):
    with pytest.raises(ValueError, match="sentence 0: annotator 1 chose"):
        moments(np.zeros((1, 21)), np.array([[[0, 0], wrong]]), np.ones((1, 21), dtype=bool))


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="0 sentences"):
        moments(np.zeros((0, 21)), np.zeros((0, 4, 2), dtype=int), np.zeros((0, 21), dtype=bool))
