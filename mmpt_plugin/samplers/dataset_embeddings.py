"""One vector per video of a data set: from a pass over all videos, or from the embeddings computed in training.

V videos, B pairs in a batch, D embedding width.
"""

from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any, cast

import numpy as np
import torch
from jaxtyping import Float, Float16, Int
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmpt_plugin.batch import Batch, Cluster
from mmpt_plugin.distributed import gather_arrays, rank, world_size
from mmpt_plugin.protocols import Dataset

EMBEDDING_CHUNK = 32  # videos embedded at a time
GATHERED_CHUNKS = 32  # chunks of each rank gathered at a time
MERGED_CHUNK = 4096  # videos merged over ranks at a time


@torch.no_grad()
def embed_dataset(
    model: nn.Module,
    dataset: Dataset,
    *,
    seed: int,
    epoch: int,
    num_workers: int = 0,
    gather: bool = True,
) -> Float[np.ndarray, "V D"]:
    """One float16 vector per video: the mean over its clip pairs of (video + text) / 2 (VideoCLIP, section 3.3).

    Under torch.distributed, each rank embeds a contiguous share of the videos, in order of ranks. Every rank returns
    the vectors of all videos, or with `gather=False` only those of its own share. The clips drawn depend only on
    `seed` and `epoch`.
    """
    device = next(model.parameters()).device
    chunks = [
        Cluster(seed, epoch, number, tuple(range(begin, min(begin + EMBEDDING_CHUNK, len(dataset)))))
        for number, begin in enumerate(range(0, len(dataset), EMBEDDING_CHUNK))
    ]
    each = -(-len(chunks) // world_size())
    first = rank() * each
    mine = [chunks[min(number, len(chunks) - 1)] for number in range(first, first + each)]
    loader = DataLoader(cast(Any, dataset), sampler=mine, batch_size=None, num_workers=num_workers)
    embedded = embed_chunks(model, loader, device)
    training = model.training
    model.eval()
    vectors: np.ndarray | None = None
    for begin in range(0, each, GATHERED_CHUNKS):
        piece = torch.stack(list(islice(embedded, GATHERED_CHUNKS))).cpu().numpy()
        pieces = gather_arrays(piece) if gather else piece[None]  # (ranks, chunks, EMBEDDING_CHUNK, D)
        if vectors is None:
            vectors = np.empty((len(pieces), each, *piece.shape[1:]), dtype=np.float16)
        vectors[:, begin : begin + len(piece)] = pieces
    model.train(training)
    assert vectors is not None
    skipped = 0 if gather else first * EMBEDDING_CHUNK
    return vectors.reshape(-1, vectors.shape[-1])[: max(len(dataset) - skipped, 0)]


def embed_chunks(model: nn.Module, batches: Iterable[Batch], device: torch.device) -> Iterator[Tensor]:
    """Yield the mean vectors of each batch's videos, (EMBEDDING_CHUNK, D), padded with zeros; float16.

    On a GPU, the model runs with float16 autocast.
    """
    for batch in batches:
        with torch.autocast(device.type, dtype=torch.float16, enabled=device.type == "cuda"):
            video, text = model(batch.packed().to(device))
        pairs = ((video + text) / 2).float()
        videos = len(torch.unique(batch.video_ids))
        mean = pairs.view(videos, -1, pairs.shape[1]).mean(dim=1)
        yield nn.functional.pad(mean, (0, 0, 0, EMBEDDING_CHUNK - videos)).half()


class RunningMeans:
    """The mean over each video's pairs of (video + text) / 2, from the last epoch that showed the video.

    Unlike those of `embed_dataset`, these vectors are stale: each was computed with dropout, and with the weights of
    the steps that showed its video, on average half an epoch ago. A video that an epoch misses keeps its old vector,
    so use them with the sampler's `cover: true`.
    """

    def __init__(self, vectors: Float16[np.ndarray, "V D"]) -> None:
        """`vectors` are the initial vectors of all videos; they are updated in place."""
        self.vectors = vectors
        self.counts = np.zeros(len(vectors), dtype=np.int64)
        self._last: tuple[Float[Tensor, "B D"], Int[Tensor, " B"], torch.cuda.Event | None] | None = None

    def add(self, video: Float[Tensor, "B D"], text: Float[Tensor, "B D"], video_ids: Int[Tensor, " B"]) -> None:
        """Add the embeddings of one batch on this rank; `video_ids` are indices of `vectors`.

        They are counted by the next call, or by `merge`: here, a step of training would wait for the GPU.
        """
        self._count()
        pairs = ((video + text) / 2).detach().float()
        copies = pairs.to("cpu", non_blocking=True), video_ids.to("cpu", non_blocking=True)
        self._last = *copies, torch.cuda.current_stream().record_event() if pairs.is_cuda else None

    def _count(self) -> None:
        """Count the batch that was added last."""
        if self._last is None:
            return
        (pairs, video_ids, copied), self._last = self._last, None
        if copied is not None:
            copied.synchronize()
        ids, place, counts = torch.unique(video_ids, return_inverse=True, return_counts=True)
        sums = torch.zeros(len(ids), pairs.shape[1]).index_add_(0, place, pairs).numpy()
        rows, before = ids.numpy(), self.counts[ids.numpy(), None]
        self.counts[rows] += counts.numpy()
        self.vectors[rows] = (self.vectors[rows] * before + sums) / self.counts[rows, None]

    def merge(self) -> Float16[np.ndarray, "V D"]:
        """End an epoch: merge the means of all ranks, reset the counts, and return `vectors`, equal on all ranks."""
        self._count()
        for begin in range(0, len(self.vectors), MERGED_CHUNK):
            chunk = slice(begin, begin + MERGED_CHUNK)
            vectors, counts = self.vectors[chunk], self.counts[chunk, None]
            sums = gather_arrays(vectors.astype(np.float32) * counts).sum(axis=0)
            total = gather_arrays(counts).sum(axis=0)
            np.copyto(vectors, sums / np.maximum(total, 1), where=total > 0, casting="same_kind")
        self.counts[:] = 0
        return self.vectors
