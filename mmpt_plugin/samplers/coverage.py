"""Coverage of a data set by the clusters of an epoch.

C clusters of K videos each.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Coverage:
    """Numbers of videos that an epoch shows, misses and repeats."""

    num_videos: int
    """Number of videos in the data set."""
    missed: int
    """Number of videos in none of the clusters."""
    repeated: int
    """Number of videos that occur more than once, in one or in several clusters."""
    most: int
    """Number of occurrences of the most frequent video."""

    @property
    def share(self) -> float:
        """The share of the videos that the epoch shows."""
        return 1 - self.missed / self.num_videos

    def __str__(self) -> str:
        return (
            f"{100 * self.share:.1f} % of {self.num_videos} videos ({self.missed} missed, {self.repeated} more than "
            f"once, one at most {self.most} times)"
        )


def coverage(clusters: Int[np.ndarray, "C K"], num_videos: int) -> Coverage:
    """Coverage of `num_videos` videos by the clusters of an epoch; each row holds the video indices of a cluster."""
    uses = np.bincount(clusters.ravel(), minlength=num_videos)
    return Coverage(num_videos, int((uses == 0).sum()), int((uses > 1).sum()), int(uses.max()))
