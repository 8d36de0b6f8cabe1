"""Multiple choice against the recordings."""

import numpy as np
import pytest

from mmpt_plugin.metrics.question_answering import multiple_choice, multiple_choice_chance


@pytest.mark.parametrize("case", range(3))
def test_accuracy_is_the_originals(recorded, expected, case):
    values = multiple_choice(recorded[f"qa_scores{case}"], recorded[f"qa_targets{case}"].ravel())
    assert values == {"accuracy": pytest.approx(expected[f"qa{case}"])}


def test_equal_options_are_wrong():
    assert multiple_choice(np.array([[2.0, 2, 0], [1, 2, 0]]), np.array([0, 1])) == {"accuracy": 0.5}


def test_chance_is_what_random_scores_get():
    scores = np.random.default_rng(0).random((20000, 5))
    assert multiple_choice(scores, np.arange(20000) % 5) == pytest.approx(multiple_choice_chance(5), rel=0.05)
