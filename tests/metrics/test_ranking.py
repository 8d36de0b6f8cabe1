"""The rank of the target among scores, computed by hand."""

import numpy as np
import pytest

from mmpt_plugin.metrics.ranking import target_rank


def test_ranks_by_hand():
    scores = np.array([[3.0, 1, 2], [3, 1, 2], [3, 1, 2]])
    assert target_rank(scores, np.array([0, 1, 2])).tolist() == [1, 3, 2]


def test_ties_count_against_the_model():
    assert target_rank(np.array([[1.0, 1, 0]]), np.array([0])).tolist() == [2]


def test_a_score_that_is_no_number_ranks_last_and_others_stand_above():
    scores = np.array([[np.nan, 1, 0], [0.5, np.nan, 0]])
    assert target_rank(scores, np.array([0, 0])).tolist() == [3, 2]


@pytest.mark.parametrize("target", [-1, 3])
def test_a_target_out_of_range_is_named(target):
    with pytest.raises(ValueError, match=f"row 1: the target is {target}, but the choices are 0 to 2"):
        target_rank(np.ones((2, 3)), np.array([0, target]))


def test_nothing_to_score_is_an_error():
    with pytest.raises(ValueError, match="0 rows"):
        target_rank(np.ones((0, 3)), np.zeros(0, dtype=int))
