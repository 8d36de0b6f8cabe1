"""Classification accuracy from scores. N videos, C classes."""

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.metrics.ranking import target_rank


def classification(scores: Float[np.ndarray, "N C"], labels: Int[np.ndarray, " N"]) -> dict[str, float]:
    """`top1` and `top5`, as shares of the videos, and `mean_per_class`: top-1 averaged over the classes that occur."""
    ranked = target_rank(scores, labels)
    num_videos = np.bincount(labels)
    num_right = np.bincount(labels, weights=ranked == 1)
    occurs = num_videos > 0
    return {
        "top1": float((ranked == 1).mean()),
        "top5": float((ranked <= 5).mean()),
        "mean_per_class": float((num_right[occurs] / num_videos[occurs]).mean()),
    }


def classification_chance(num_classes: int) -> dict[str, float]:
    """The expected metrics of a random order of the classes."""
    return {"top1": 1 / num_classes, "top5": min(5 / num_classes, 1.0), "mean_per_class": 1 / num_classes}
