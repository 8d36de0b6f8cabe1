"""Segmentation: a label a frame, 0 for background."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Int


def segmentation(
    predicted: Sequence[Int[np.ndarray, " _"]],
    true: Sequence[Int[np.ndarray, " _"]],
    *,
    num_classes: int,
    background: int = 0,
) -> dict[str, float]:
    """Shares of right frames, of all and of those that are no background, and the mean F1 over foreground classes."""
    p, t = np.concatenate(predicted), np.concatenate(true)
    foreground = t != background
    hits = np.bincount(t[p == t], minlength=num_classes)
    both = np.bincount(p, minlength=num_classes) + np.bincount(t, minlength=num_classes)
    f1 = [2 * hits[c] / both[c] for c in range(num_classes) if c != background and (t == c).any()]
    return {
        "frame_accuracy": float((p == t).mean()),
        "foreground_accuracy": float((p == t)[foreground].mean()) if foreground.any() else float("nan"),
        "macro_f1": float(np.mean(f1)) if f1 else float("nan"),
    }
