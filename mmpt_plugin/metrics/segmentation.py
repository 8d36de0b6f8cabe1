"""Action segmentation metrics: one label per frame, over all frames of all videos. T frames of a video."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

Labels = Sequence[Int[np.ndarray, " _"]]


def segmentation(predicted: Labels, true: Labels, *, num_classes: int, background: int = 0) -> dict[str, float]:
    """Metrics over the frames of all videos together; the two sequences hold one array (T,) per video.

    `frame_accuracy` counts every frame, as papers on COIN do. Most frames are background, so see the others too:
    `foreground_accuracy` counts only frames whose true label is not background (NaN if there are none), and `macro_f1`
    is the mean F1 of the classes, including background, that occur in the predictions or in the true labels. A
    predicted label of num_classes or more, possible if the classifier has more outputs than there are labels, is wrong
    and counts as a class of its own.
    """
    lengths = [(len(p), len(t)) for p, t in zip(predicted, true, strict=True)]
    for video, (given, wanted) in enumerate(lengths):
        if given != wanted:
            raise ValueError(f"video {video} has {wanted} true labels, but {given} predicted ones")
    if not any(wanted for _, wanted in lengths):
        raise ValueError("there is nothing to score: 0 frames")
    labels, answers = in_range(np.concatenate(true), num_classes), np.concatenate(predicted)
    width = max(num_classes, int(answers.max()) + 1)
    in_range(answers, width)
    num_true, num_predicted, num_right = (
        np.bincount(values, minlength=width) for values in (labels, answers, labels[labels == answers])
    )
    occurs = num_true + num_predicted > 0
    num_foreground = len(labels) - num_true[background]
    num_right_foreground = num_right.sum() - num_right[background]
    return {
        "frame_accuracy": float(num_right.sum() / len(labels)),
        "foreground_accuracy": float(num_right_foreground / num_foreground) if num_foreground else float("nan"),
        "macro_f1": float((2 * num_right[occurs] / (num_true + num_predicted)[occurs]).mean()),
    }


def constant_background(true: Labels, *, num_classes: int, background: int = 0) -> dict[str, float]:
    """The metrics of predicting background for every frame."""
    predicted = [np.full_like(labels, background) for labels in true]
    return segmentation(predicted, true, num_classes=num_classes, background=background)


def in_range(labels: Int[np.ndarray, " F"], num_classes: int) -> Int[np.ndarray, " F"]:
    """The labels unchanged; ValueError if one is not in 0 to num_classes - 1."""
    lowest, highest = labels.min(), labels.max()
    if lowest < 0 or highest >= num_classes:
        raise ValueError(f"labels run from {lowest} to {highest}, but the classes are 0 to {num_classes - 1}")
    return labels
