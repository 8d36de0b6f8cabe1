"""Classification against the recordings, and by hand."""

import numpy as np
import pytest

from mmpt_plugin.metrics.classification import classification, classification_chance


@pytest.mark.parametrize("split", range(3))
def test_top_1_and_top_5_are_the_originals(recorded, expected, split):
    tested = recorded["ar_splits"][split] == 2
    values = classification(recorded["ar_logits"][tested], recorded["ar_labels"][tested])
    assert values["top1"] == pytest.approx(expected["action_recognition"]["r1_splits"][split])
    assert values["top5"] == pytest.approx(expected["action_recognition"]["r5_splits"][split])


def test_mean_per_class_weighs_classes_alike_and_leaves_out_those_that_never_occur():
    """Class 0 is right three times of three, class 2 once of two, class 1 has no video."""
    scores = np.eye(7)[[0, 0, 0, 2, 1]]
    values = classification(scores, np.array([0, 0, 0, 2, 2]))
    assert values == {"top1": 0.8, "top5": 0.8, "mean_per_class": 0.75}


def test_chance_is_what_random_scores_get():
    scores = np.random.default_rng(0).random((20000, 20))
    assert classification(scores, np.arange(20000) % 20) == pytest.approx(classification_chance(20), rel=0.1)


def test_chance_with_few_classes_is_no_more_than_certain():
    assert classification_chance(3)["top5"] == 1
