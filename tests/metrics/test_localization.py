"""The ordered alignment and recall against the recordings, brute force and numbers worked by hand."""

from itertools import combinations

import numpy as np
import pytest

from mmpt_plugin.metrics.localization import average_recall, ordered_steps, step_costs


@pytest.mark.parametrize("case", range(7))
def test_alignments_are_the_originals(recorded, case):
    frames = ordered_steps(-recorded[f"dp_logprob{case}"])
    np.testing.assert_array_equal(frames, recorded[f"dp_path{case}"].argmax(axis=0))


@pytest.mark.parametrize("case", range(2))
def test_of_equal_alignments_the_originals_is_chosen(recorded, case):
    frames = ordered_steps(recorded[f"dp_tie_cost{case}"])
    np.testing.assert_array_equal(frames, recorded[f"dp_tie_path{case}"].argmax(axis=0))


@pytest.mark.parametrize("num_steps", range(1, 6))
@pytest.mark.parametrize("num_frames", range(5, 9))
def test_alignments_cost_what_the_best_of_all_costs(num_frames, num_steps):
    costs = np.random.default_rng(num_frames * num_steps).standard_normal((num_frames, num_steps))
    steps = np.arange(num_steps)
    best = min(combinations(range(num_frames), num_steps), key=lambda frames: costs[list(frames), steps].sum())
    assert ordered_steps(costs).tolist() == list(best)


def test_as_many_frames_as_steps_leave_one_alignment():
    assert ordered_steps(np.random.default_rng(0).random((4, 4))).tolist() == [0, 1, 2, 3]


def test_fewer_frames_than_steps_are_an_error():
    with pytest.raises(ValueError, match="3 ordered steps .* the video has 2"):
        ordered_steps(np.ones((2, 3)))


def test_no_steps_take_no_frames():
    assert ordered_steps(np.ones((2, 0))).tolist() == []


def test_a_cost_that_is_no_number_is_avoided():
    costs = np.array([[np.nan, 1], [2, np.nan], [5, 7], [6, 3]])
    assert ordered_steps(costs).tolist() == [1, 3]


def test_steps_stay_in_order_where_every_cost_is_infinite():
    assert (np.diff(ordered_steps(np.full((6, 3), np.inf))) > 0).all()


def test_step_costs_by_hand():
    """Scores ln 1 and ln 3 are probabilities 1/4 and 3/4, however much is added to both."""
    scores = np.log([[1.0, 3.0]]) + np.array([[0.0], [1000.0]])
    np.testing.assert_allclose(step_costs(scores), -np.log([[0.25, 0.75]] * 2))


def test_average_recall_is_the_originals(recorded, expected):
    tasks = expected["crosstask_video_to_task"]
    found = [ordered_steps(-recorded[f"dp_logprob{i}"]) for i in range(len(tasks))]
    values = average_recall(found, [recorded[f"ct_true{i}"] > 0 for i in range(len(tasks))], list(tasks.values()))
    assert values.pop("average_recall") == pytest.approx(expected["crosstask"]["recall"])
    assert values == {f"recall_task{i}": pytest.approx(expected["crosstask"][f"task{i}"]) for i in range(3)}


def test_average_recall_by_hand():
    """Task a finds 1 of 3 annotated steps over two videos, b 1 of 1; steps annotated nowhere do not count."""
    annotated = [np.array([[1, 0], [0, 1]]), np.array([[1, 0], [1, 0]]), np.array([[0], [1]])]
    found = [np.array([1, 0]), np.array([1, 1]), np.array([1])]
    values = average_recall(found, [truth == 1 for truth in annotated], ["a", "a", "b"])
    assert values == {"average_recall": pytest.approx(2 / 3), "recall_a": pytest.approx(1 / 3), "recall_b": 1.0}


def test_a_task_without_annotated_steps_is_named():
    with pytest.raises(ValueError, match="any video of \\['b'\\]"):
        average_recall([np.array([0])] * 2, [np.array([[True]]), np.array([[False]])], ["a", "b"])


def test_no_videos_are_an_error():
    with pytest.raises(ValueError, match="no videos"):
        average_recall([], [], [])
