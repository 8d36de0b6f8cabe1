"""Step localisation: every step of a task at one frame, in order. T frames, K steps."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int


def ordered_steps(scores: Float[np.ndarray, "T K"]) -> Int[np.ndarray, " K"]:
    """The frames, one a step and in the steps' order, whose scores sum highest."""
    num_frames, num_steps = scores.shape
    if num_frames < num_steps:
        raise ValueError(f"{num_frames} frames can't hold {num_steps} steps in order")
    best = np.zeros(num_frames + 1)
    tables = []
    for step in range(num_steps):
        ending = np.concatenate([[-np.inf], best[:-1] + scores[:, step]])
        best = np.maximum.accumulate(ending)
        tables.append(ending)
    frames, limit = np.empty(num_steps, dtype=np.int64), num_frames + 1
    for step in reversed(range(num_steps)):
        limit = int(np.argmax(tables[step][:limit]))
        frames[step] = limit - 1
    return frames


def average_recall(
    frames: Sequence[Int[np.ndarray, " _"]], shown: Sequence[Bool[np.ndarray, "_ _"]], groups: Sequence[str]
) -> dict[str, float]:
    """Per task the share of annotated steps whose frame shows them; the mean over tasks is `average_recall`."""
    hits: dict[str, list[int]] = {}
    for chosen, truth, group in zip(frames, shown, groups, strict=True):
        one = hits.setdefault(group, [0, 0])
        one[0] += int(truth[chosen, np.arange(len(chosen))].sum())
        one[1] += int(truth.any(axis=0).sum())
    return {"average_recall": float(np.mean([hit / all_ for hit, all_ in hits.values()]))}
