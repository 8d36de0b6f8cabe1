"""Segmentation against the recordings, by hand and by a plain loop."""

import math

import numpy as np
import pytest

from mmpt_plugin.metrics.segmentation import constant_background, segmentation


@pytest.mark.parametrize("case", range(3))
def test_frame_accuracy_is_the_originals(recorded, expected, case):
    values = segmentation([recorded[f"coin_pred{case}"]], [recorded[f"coin_true{case}"]], num_classes=779)
    assert values["frame_accuracy"] == pytest.approx(expected[f"coin{case}"])


def test_metrics_by_hand():
    """Class 0 has F1 2·2/(3+3), class 1 2·1/(2+1), class 2 0/(0+1); class 3 never occurs. Frames count, not videos."""
    true = [np.array([0, 0, 0, 1]), np.array([1])]
    predicted = [np.array([0, 0, 2, 1]), np.array([0])]
    assert segmentation(predicted, true, num_classes=4) == {
        "frame_accuracy": 3 / 5,
        "foreground_accuracy": 1 / 2,
        "macro_f1": pytest.approx((2 / 3 + 2 / 3 + 0) / 3),
    }


def test_macro_f1_equals_a_loop_over_classes():
    rng = np.random.default_rng(0)
    true, predicted = (rng.integers(0, 9, 200) for _ in range(2))
    f1 = []
    for c in range(9):
        precision, recall = (true[predicted == c] == c).mean(), (predicted[true == c] == c).mean()
        f1.append(2 * precision * recall / (precision + recall) if precision + recall else 0)
    assert segmentation([predicted], [true], num_classes=9)["macro_f1"] == pytest.approx(np.mean(f1))


def test_the_constant_background_gets_no_foreground():
    true = [np.array([5, 5, 5, 1])]
    assert constant_background(true, num_classes=6, background=5) == {
        "frame_accuracy": 0.75,
        "foreground_accuracy": 0.0,
        "macro_f1": pytest.approx((6 / 7 + 0) / 2),
    }


def test_foreground_accuracy_without_foreground_is_no_number():
    assert math.isnan(constant_background([np.zeros(3, dtype=int)], num_classes=2)["foreground_accuracy"])


def test_a_label_beyond_the_named_ones_is_a_wrong_answer():
    """As the original scores its classifier, which is wider than the labels. F1: 2/3, 1/2 and 0 of label 9."""
    true, predicted = [np.array([0, 0, 1, 1])], [np.array([0, 1, 1, 9])]
    values = segmentation(predicted, true, num_classes=2)
    assert values["frame_accuracy"] == 0.5
    assert values["foreground_accuracy"] == 0.5
    assert values["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 0) / 3)
    with pytest.raises(ValueError, match="labels run from -1 to 1"):
        segmentation([np.array([-1, 1])], [np.array([0, 1])], num_classes=2)


@pytest.mark.parametrize("label", [-100, 3])
def test_labels_out_of_range_are_named(label):
    with pytest.raises(ValueError, match=f"{label}.* the classes are 0 to 2"):
        segmentation([np.array([0, 1])], [np.array([label, 1])], num_classes=3)


def test_videos_of_two_lengths_are_named():
    with pytest.raises(ValueError, match="video 1 has 3 true labels, but 2 predicted"):
        segmentation([np.zeros(1, int), np.zeros(2, int)], [np.zeros(1, int), np.zeros(3, int)], num_classes=1)


@pytest.mark.parametrize("videos", [[], [np.zeros(0, dtype=int)]])
def test_nothing_to_score_is_an_error(videos):
    with pytest.raises(ValueError, match="0 frames"):
        segmentation(videos, videos, num_classes=2)
