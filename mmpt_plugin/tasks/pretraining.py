"""Contrastive pre-training on narrated video."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.utils.data import DataLoader

from mmpt_plugin import registry
from mmpt_plugin.clips.batch import Batch, Cluster
from mmpt_plugin.distributed import gather_arrays, rank, world_size
from mmpt_plugin.registry import register_task

EMBEDDING_CHUNK = 32  # videos whose clips are embedded at a time
GATHERED_CHUNKS = 32  # chunks of each rank that are gathered at a time


@dataclass(kw_only=True)
class VideoTextPretrainingConfig:
    """What is trained on, and which videos share a batch."""

    dataset: dict[str, Any] = field(default_factory=dict)
    """Data to train on, such as `{_name: overlapped_clips, splits: {train: FOLDER, valid: FOLDER}}`."""
    sampler: dict[str, Any] = field(default_factory=lambda: {"_name": "uniform"})
    """Sampler that decides which videos share a batch, such as `{_name: uniform}`; a project sets it as `sampler`."""
    reuse_training_embeddings: bool = False
    """Index each epoch by the embeddings that training computed in the epoch before, instead of embedding all videos
    again. Only the first epoch of a run, and the first after it resumes, embed all videos. The reused embeddings are
    stale by about half an epoch (tasks/running_means.py); use them with `sampler.cover`."""

    def __post_init__(self) -> None:
        if self.reuse_training_embeddings and self.sampler.get("sharded"):
            raise ValueError(
                "task.reuse_training_embeddings keeps all vectors on every rank, which sampler.sharded forbids: "
                "turn one of them off"
            )


@register_task("video_text_pretraining", dataclass=VideoTextPretrainingConfig)
class VideoTextPretraining:
    """Contrastive training on pairs of video and text clips (VideoCLIP, section 3)."""

    def __init__(self, config: VideoTextPretrainingConfig) -> None:
        self.config = config
        self.train_split = "train"
        """Which split is trained on; the others are validated on."""
        self.video_ids: dict[str, Sequence[str]] = {}

    def dataset(self, split: str) -> Any:
        """`len()` is the number of videos, and `dataset[Cluster]` a Batch; no split has videos that train has."""
        dataset = registry.datasets.build(self.config.dataset, split)
        self.keep_apart(f"split '{split}'", dataset)
        return dataset

    def keep_apart(self, name: str, dataset: Any) -> None:
        """ValueError where what is trained on and what is validated on share videos."""
        video_ids = videos_of(dataset)
        if video_ids is None:
            return
        self.video_ids[name] = video_ids
        trained = f"split '{self.train_split}'"
        training = self.video_ids.get(trained, ())
        for other in [key for key in self.video_ids if key != trained and name in (key, trained)]:
            validation = set(self.video_ids[other])
            if both := sorted(validation.intersection(training)):
                raise ValueError(
                    f"{other} has {len(both)} of its {len(validation)} videos in common with {trained}, such as "
                    f"{', '.join(both[:5])}: validate on others, or not at all (dataset.disable_validation=true)"
                )

    def sampler(self, dataset: Any, *, split: str, seed: int) -> Any:
        """The sampler of the training split; other splits are taken in uniform batches of the same size."""
        config: Mapping[str, Any] = self.config.sampler
        if split != self.train_split:
            size = min(config.get("videos_per_batch", 32), len(dataset))
            config = {"_name": "uniform", "videos_per_batch": size}
        return registry.samplers.build(config, num_videos=len(dataset), seed=seed)


def videos_of(dataset: Any) -> Sequence[str] | None:
    """The ids of a data set's videos, which its corpus or its shards may hold; None where it does not tell them."""
    for owner in (dataset, getattr(dataset, "corpus", None), getattr(dataset, "shards", None)):
        video_ids: Sequence[str] | None = getattr(owner, "video_ids", None)
        if video_ids is not None:
            return video_ids
    return None


@torch.no_grad()
def embed_videos(
    model: nn.Module,
    dataset: Any,
    *,
    seed: int,
    epoch: int,
    device: torch.device,
    num_workers: int = 0,
    gather: bool = True,
) -> Float[np.ndarray, "V D"]:
    """A float16 vector a video: the mean over its clip pairs of (video + text) / 2 (VideoCLIP, section 3.3).

    Under torch.distributed each rank embeds its share of the videos, and all ranks get all vectors, in one array
    that is filled piece by piece; without `gather` each gets those of its own share, which follow the lower ranks'.
    The clips drawn depend on seed and epoch alone.
    """
    chunks = [
        Cluster(seed, epoch, number, tuple(range(begin, min(begin + EMBEDDING_CHUNK, len(dataset)))))
        for number, begin in enumerate(range(0, len(dataset), EMBEDDING_CHUNK))
    ]
    each = -(-len(chunks) // world_size())
    first = rank() * each
    mine = [chunks[min(number, len(chunks) - 1)] for number in range(first, first + each)]
    embedded = embed_chunks(model, DataLoader(dataset, sampler=mine, batch_size=None, num_workers=num_workers), device)
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
    """The means of each batch's videos, (EMBEDDING_CHUNK, D), zeros where there are fewer; made in half on a GPU."""
    for batch in batches:
        with torch.autocast(device.type, dtype=torch.float16, enabled=device.type == "cuda"):
            video, text = model(batch.to(device))
        pairs = ((video + text) / 2).float()
        videos = len(torch.unique(batch.video_ids))
        mean = pairs.view(videos, -1, pairs.shape[1]).mean(dim=1)
        yield nn.functional.pad(mean, (0, 0, 0, EMBEDDING_CHUNK - videos)).half()
