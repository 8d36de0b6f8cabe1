"""DiDeMo's metrics: which moment, a run of six five-second chunks, a sentence describes. Q sentences, A annotators.

As in Hendricks et al. (ICCV 2017), the annotator who agrees least is left out.
"""

from itertools import combinations

import numpy as np
from jaxtyping import Bool, Float, Int

NUM_CHUNKS = 6
MOMENTS = np.array([(i, i) for i in range(NUM_CHUNKS)] + list(combinations(range(NUM_CHUNKS), 2)))  # (21, 2)
"""First and last chunk of each candidate moment, in the order of the scores."""


def moments(
    scores: Float[np.ndarray, "Q 21"], times: Int[np.ndarray, "Q A 2"], possible: Bool[np.ndarray, "Q 21"]
) -> dict[str, float]:
    """`rank@1` and `rank@5`, as shares of the sentences, and `miou`; ties count against the model.

    Only possible moments are ranked: those within the video's duration. The rank of a sentence is the mean of the three
    best ranks among the annotators' moments. An annotator who chose an impossible moment is skipped; if none is left,
    the sentence is a miss. The IoU of a sentence is that of the best moment: the mean of the three highest among
    annotators.
    """
    if len(scores) == 0:
        raise ValueError("there is nothing to score: 0 sentences")
    chosen = moment_of(times)  # (Q, A)
    below = scores[:, None, :] < scores[:, :, None]  # (Q, 21, 21)
    ranks = np.where(possible, (~below & possible[:, None]).sum(axis=2), np.inf)
    three = np.sort(np.take_along_axis(ranks, chosen, axis=1))[:, :3]
    ranked = np.isfinite(three)
    num_ranked, sum_ranked = ranked.sum(axis=1), three.sum(axis=1, where=ranked)
    rank_at = {f"rank@{k}": (num_ranked > 0) & (sum_ranked <= k * num_ranked) for k in (1, 5)}

    agreement = np.sort(intersection_over_union()[:, chosen])[:, :, -3:].mean(axis=2).T  # (Q, 21)
    highest = np.fmax.reduce(np.where(possible, scores, -np.inf), axis=1, keepdims=True)
    best = possible & ~(scores < highest)
    iou = agreement.min(axis=1, where=best, initial=1) * possible.any(axis=1)
    return {name: float(values.mean()) for name, values in (rank_at | {"miou": iou}).items()}


def moments_chance(
    times: Int[np.ndarray, "Q A 2"],
    possible: Bool[np.ndarray, "Q 21"],
    *,
    rng: np.random.Generator,
    num_draws: int = 100,
) -> dict[str, float]:
    """The metrics of random orders of the moments, averaged over draws."""
    drawn = [moments(rng.random(possible.shape), times, possible) for _ in range(num_draws)]
    return {name: float(np.mean([values[name] for values in drawn])) for name in drawn[0]}


def moment_of(times: Int[np.ndarray, "Q A 2"]) -> Int[np.ndarray, "Q A"]:
    """The index in `MOMENTS` of each moment, given as its first and last chunk."""
    first, last = times[..., 0], times[..., 1]
    wrong = np.argwhere((first < 0) | (first > last) | (last >= NUM_CHUNKS))
    if len(wrong):
        sentence, annotator = wrong[0]
        raise ValueError(
            f"sentence {sentence}: annotator {annotator} chose chunks {times[sentence, annotator].tolist()}, "
            f"but a moment is [first, last] with 0 <= first <= last < {NUM_CHUNKS}"
        )
    place = np.empty((NUM_CHUNKS, NUM_CHUNKS), dtype=np.int64)
    place[tuple(MOMENTS.T)] = np.arange(len(MOMENTS))
    found: Int[np.ndarray, "Q A"] = place[first, last]
    return found


def intersection_over_union() -> Float[np.ndarray, "21 21"]:
    """The intersection over union of all pairs of moments, counted in chunks."""
    first, last = MOMENTS.T
    both = np.minimum.outer(last, last) - np.maximum.outer(first, first) + 1
    either = np.maximum.outer(last, last) - np.minimum.outer(first, first) + 1
    iou: Float[np.ndarray, "21 21"] = np.maximum(both, 0) / either
    return iou
