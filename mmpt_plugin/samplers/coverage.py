"""How often an epoch's clusters show each video."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Int


@dataclass(frozen=True)
class Coverage:
    """How many videos of the data set an epoch shows, misses and repeats."""

    num_videos: int
    """Videos of the data set."""
    missed: int
    """Videos that no cluster holds."""
    repeated: int
    """Videos that are in more than one place."""
    most: int
    """Places that the commonest video has."""

    @property
    def share(self) -> float:
        """Of the videos, those that the epoch shows."""
        return 1 - self.missed / self.num_videos

    def __str__(self) -> str:
        return (
            f"{100 * self.share:.1f} % of {self.num_videos} videos ({self.missed} missed, {self.repeated} more than "
            f"once, one at most {self.most} times)"
        )


def coverage(clusters: Int[np.ndarray, "C K"], num_videos: int) -> Coverage:
    """Coverage of a data set of `num_videos` videos by the clusters of an epoch; rows are clusters of video indices."""
    uses = np.bincount(clusters.ravel(), minlength=num_videos)
    return Coverage(num_videos, int((uses == 0).sum()), int((uses > 1).sum()), int(uses.max()))
