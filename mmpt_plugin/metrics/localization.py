"""Step localization: when each of a task's ordered steps happens in a video. T frames, K steps."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int


def step_costs(scores: Float[np.ndarray, "T K"]) -> Float[np.ndarray, "T K"]:
    """The negative log softmax over the steps of each frame: the cost of assigning the step to the frame."""
    highest = scores.max(axis=1, keepdims=True)
    costs: Float[np.ndarray, "T K"] = highest + np.log(np.exp(scores - highest).sum(axis=1, keepdims=True)) - scores
    return costs


def ordered_steps(costs: Float[np.ndarray, "T K"]) -> Int[np.ndarray, " K"]:
    """The frame of each step, strictly increasing, with the minimum sum of costs (Zhukov et al., CVPR 2019).

    All other frames are background, with cost 0. If there are as many frames as steps, there is only one alignment.
    Among alignments of equal cost, the last step gets its last possible frame, and each step before it its first.
    A NaN cost counts as infinite.
    """
    num_frames, num_steps = costs.shape
    if num_frames < num_steps:
        raise ValueError(f"{num_steps} ordered steps need at least {num_steps} frames, but the video has {num_frames}")
    if num_steps == 0:
        return np.empty(0, dtype=np.int64)
    # Step k is at frame k + delay; any sequence of delays that never decreases is a valid alignment.
    num_delays = num_frames - num_steps + 1
    costs = np.where(np.isnan(costs), np.inf, costs)
    sums = np.zeros((num_steps, num_delays))  # least cost of steps 0 to k, with step k at each delay
    for k in range(num_steps):
        if k > 0:
            np.minimum.accumulate(sums[k - 1], out=sums[k])
        sums[k] += costs[k : k + num_delays, k]
    delays = np.empty(num_steps, dtype=np.int64)
    delays[-1] = num_delays - 1 - np.argmin(sums[-1, ::-1])
    for k in range(num_steps - 2, -1, -1):
        delays[k] = np.argmin(sums[k, : delays[k + 1] + 1])
    return delays + np.arange(num_steps)


def average_recall(
    found: Sequence[Int[np.ndarray, " _"]], annotated: Sequence[Bool[np.ndarray, "_ _"]], tasks: Sequence[str]
) -> dict[str, float]:
    """`average_recall`, the unweighted mean over tasks, and the recall of each task as `recall_{task}`.

    The arguments give for each video the frame of each step (K,), the frames where each step is annotated (T, K), and
    the task. The recall of a task is the share of annotated steps in its videos whose predicted frame is annotated
    with that step.
    """
    num_annotated: dict[str, int] = defaultdict(int)
    num_found: dict[str, int] = defaultdict(int)
    for frames, truth, task in zip(found, annotated, tasks, strict=True):
        num_annotated[task] += int(truth.any(axis=0).sum())
        num_found[task] += int(truth[frames, np.arange(len(frames))].sum())
    empty = [task for task, number in num_annotated.items() if number == 0]
    if empty or not num_annotated:
        raise ValueError(f"no step is annotated in any video of {empty}" if empty else "there are no videos to score")
    recalls = {f"recall_{task}": num_found[task] / number for task, number in num_annotated.items()}
    return {"average_recall": float(np.mean(list(recalls.values())))} | recalls
