"""Equal vectors have equal scores, for any shape and position."""

import numpy as np
import pytest

from mmpt_plugin.metrics import scores
from mmpt_plugin.metrics.scores import exact_scores, pair_scores


def test_scores_by_hand():
    """(1, 2) with (3, 4) and (5, 6): 11 and 17."""
    videos, options = np.array([[1.0, 2]]), np.array([[[3.0, 4], [5, 6]]])
    assert exact_scores(videos[:, None], options).tolist() == [[11, 17]]
    assert pair_scores(videos, options[0], np.array([0, 0]), np.array([1, 0])).tolist() == [17, 11]


@pytest.mark.parametrize("factors", [1, 50, 2**17])
def test_scores_are_dot_products(factors, monkeypatch):
    monkeypatch.setattr(scores, "FACTORS_CHUNK", factors)
    rng = np.random.default_rng(0)
    left, right = rng.standard_normal((7, 1, 9)), rng.standard_normal((4, 9))
    np.testing.assert_allclose(exact_scores(left, right), left[:, 0] @ right.T, rtol=1e-12)


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
def test_equal_vectors_have_equal_scores_in_every_shape(dtype, order):
    """Two vectors, repeated: all scores of one kind are equal, and those of a smaller array."""
    rng = np.random.default_rng(0)
    for width in (1, 2, 3, 8, 33, 256, 385, 768):
        query, *two = rng.standard_normal((3, width)).astype(dtype)
        expected = exact_scores(query, np.stack(two))
        for num_queries in (1, 2, 5, 17):
            for num_options in (1, 4, 9):
                which = rng.integers(0, 2, (num_queries, num_options))
                queries = np.array(np.tile(query, (num_queries, 1)), order=order)
                options = np.array(np.stack(two)[which], order=order)
                np.testing.assert_array_equal(exact_scores(queries[:, None], options), expected[which])


def test_half_precision_is_summed_in_full():
    """1 + 2^-12 is between two half-precision numbers."""
    scored = exact_scores(np.ones((1, 2), np.float16), np.array([[1, 2**-12]], np.float16))
    assert scored.tolist() == [1 + 2**-12]


def test_numbers_too_large_are_infinite_without_a_warning():
    huge = np.full((1, 2), 1e38, np.float32)
    assert exact_scores(huge, huge).tolist() == [np.inf]
    assert np.isnan(exact_scores(np.array([[np.inf]]), np.zeros((1, 1)))).all()
