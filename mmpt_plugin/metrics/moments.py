"""DiDeMo's moment localisation: four annotators' moments in six chunks, of which the three nearest count."""

from collections.abc import Sequence

import numpy as np

Moment = tuple[int, int]


def moment_localization(rankings: Sequence[Sequence[Moment]], times: Sequence[Sequence[Moment]]) -> dict[str, float]:
    """Shares of descriptions whose moment ranks within 1 and 5, and the mean IoU of the first."""
    ranked, overlap = [], []
    for ranking, own in zip(rankings, times, strict=True):
        ranks = sorted(ranking.index(moment) + 1 for moment in own if moment in ranking)[:3]
        ranked.append(np.mean(ranks) if ranks else np.inf)
        overlap.append(np.mean(sorted((iou(ranking[0], moment) for moment in own), reverse=True)[:3]))
    places = np.array(ranked)
    return {
        "rank@1": float((places <= 1).mean()),
        "rank@5": float((places <= 5).mean()),
        "mIoU": float(np.mean(overlap)),
    }


def iou(one: Moment, other: Moment) -> float:
    shared = min(one[1], other[1]) - max(one[0], other[0]) + 1
    return max(shared, 0) / (max(one[1], other[1]) - min(one[0], other[0]) + 1)
