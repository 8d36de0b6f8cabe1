"""Step localization: when each of a task's ordered steps happens in a video. T frames, K steps."""

from collections import defaultdict
from collections.abc import Sequence

import numpy as np
from jaxtyping import Bool, Float, Int


def step_costs(scores: Float[np.ndarray, "T K"]) -> Float[np.ndarray, "T K"]:
    """Minus the log softmax over the steps of each frame: what it costs to say that the step happens there."""
    highest = scores.max(axis=1, keepdims=True)
    costs: Float[np.ndarray, "T K"] = highest + np.log(np.exp(scores - highest).sum(axis=1, keepdims=True)) - scores
    return costs


def ordered_steps(costs: Float[np.ndarray, "T K"]) -> Int[np.ndarray, " K"]:
    """The frame of each step, in strictly rising order, with the least sum of costs (Zhukov et al., CVPR 2019).

    All other frames are background, which costs nothing. With as many frames as steps there is one alignment.
    Of alignments that cost the same, the last step takes its last frame, and then each one before it its first.
    A cost that is no number counts as infinite.
    """
    num_frames, num_steps = costs.shape
    if num_frames < num_steps:
        raise ValueError(f"{num_steps} ordered steps need as many frames or more, and the video has {num_frames}")
    if num_steps == 0:
        return np.empty(0, dtype=np.int64)
    # Step k stands at frame k + delay, and delays never fall: then any choice of one is possible.
    num_delays = num_frames - num_steps + 1
    costs = np.where(np.isnan(costs), np.inf, costs)
    sums = np.zeros((num_steps, num_delays))  # of a step at each delay and of those before it
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
    """`average_recall`, the plain mean over tasks, and each task's own as `recall_{task}`.

    For each video: the frame of each step (K,), where each step is annotated (T, K), and its task. A task's recall
    is the share of its videos' annotated steps whose frame is annotated with that step.
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
