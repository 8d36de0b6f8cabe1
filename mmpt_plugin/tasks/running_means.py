"""A vector a video from the embeddings that training makes anyway, instead of a pass over all videos."""

import numpy as np
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor

from mmpt_plugin.distributed import gather_arrays

PIECE = 4096  # videos merged over ranks at a time


class RunningMeans:
    """The mean over each video's pairs of (video + text) / 2, of the last epoch that showed the video.

    These vectors are stale where those of `embed_videos` are fresh: each is from the weights of the steps that
    showed its video, on average half an epoch old, with dropout; a video that an epoch misses keeps the vector it
    had, so the sampler's `cover: true` belongs with them.
    """

    def __init__(self, vectors: Float16[np.ndarray, "V D"]) -> None:
        """`vectors` are what videos have until training shows them; they are changed in place."""
        self.vectors = vectors
        self.counts = np.zeros(len(vectors), dtype=np.int64)

    def add(self, video: Float[Tensor, "B D"], text: Float[Tensor, "B D"], video_ids: Int[Tensor, " B"]) -> None:
        """One batch's embeddings, of this rank."""
        pairs = ((video + text) / 2).detach().float().cpu()
        ids, place, counts = torch.unique(video_ids.cpu(), return_inverse=True, return_counts=True)
        sums = torch.zeros(len(ids), pairs.shape[1]).index_add_(0, place, pairs).numpy()
        rows, before = ids.numpy(), self.counts[ids.numpy(), None]
        self.counts[rows] += counts.numpy()
        self.vectors[rows] = (self.vectors[rows] * before + sums) / self.counts[rows, None]

    def merge(self) -> Float16[np.ndarray, "V D"]:
        """Ends an epoch: the means over all ranks, the same array on each; counting starts anew."""
        for begin in range(0, len(self.vectors), PIECE):
            vectors, counts = self.vectors[begin : begin + PIECE], self.counts[begin : begin + PIECE, None]
            sums = gather_arrays(vectors.astype(np.float32) * counts).sum(axis=0)
            total = gather_arrays(counts).sum(axis=0)
            np.copyto(vectors, sums / np.maximum(total, 1), where=total > 0, casting="same_kind")
        self.counts[:] = 0
        return self.vectors
