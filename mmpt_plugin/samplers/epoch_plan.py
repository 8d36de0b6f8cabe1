"""Which videos make up each epoch's batches: planned once an epoch, kept for a resume, and counted."""

import hashlib
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file
from torch import Tensor, nn

from mmpt_plugin.distributed import from_rank_0, rank
from mmpt_plugin.files import atomic_write
from mmpt_plugin.protocols import Dataset, Sampler
from mmpt_plugin.samplers.coverage import Coverage, coverage
from mmpt_plugin.samplers.dataset_embeddings import RunningMeans, embed_dataset

logger = logging.getLogger(__name__)

FILE = "clusters.safetensors"


@dataclass(kw_only=True)
class EpochPlan:
    """The clusters of each epoch of one data set, for any trainer; every rank must ask for the same epochs.

    C clusters of K videos each.
    """

    sampler: Sampler
    dataset: Dataset
    """`len(dataset)` videos, `dataset[Cluster]` a batch of clip pairs."""
    seed: int
    max_epoch: int = 0
    """The last epoch of training; later ones repeat its clusters. 0: no limit."""
    folder: Path | None = None
    """Where the current epoch's clusters are kept, next to the checkpoints; None keeps none."""
    resumes: bool = False
    """Whether clusters that are in `folder` already belong to this run."""
    settings: str = ""
    """The sampler's settings; kept clusters that were made with others are not used."""
    num_workers: int = 0
    """Processes that load the clips which are embedded."""
    reuse_embeddings: bool = False
    """Index by what `observe` was given during the last epoch; only the first epoch takes a pass over all videos."""
    means: RunningMeans | None = field(default=None, init=False)
    _planned: tuple[int, Int[np.ndarray, "C K"]] | None = field(default=None, init=False)

    def clusters(self, epoch: int, model: nn.Module) -> Int[np.ndarray, "C K"]:
        """Video indices, one row per cluster, worked out once per epoch with the weights that `model` has now."""
        past_the_end = 0 < self.max_epoch < epoch
        if self._planned is not None and (past_the_end or self._planned[0] == epoch):
            return self._planned[1]
        if past_the_end and self.folder is not None:
            return np.zeros((1, 1), dtype=np.int64)  # a finished run is started again: nothing is drawn for it
        run = {"epoch": epoch, "seed": self.seed, "num_videos": len(self.dataset), "sampler": self.settings}
        path = None if self.folder is None else self.folder / FILE
        saved = None
        if path is not None and self.resumes:
            # What rank 0 finds counts for all: another rank may not see the file.
            saved = from_rank_0(lambda: read_clusters(path, run))
        clusters = self._new_clusters(epoch, model) if saved is None else saved
        self._planned = epoch, clusters
        if path is not None and saved is None and rank() == 0:
            write_clusters(path, clusters, run)
        return clusters

    def coverage(self) -> Coverage:
        """How many videos the planned epoch shows, misses and repeats."""
        assert self._planned is not None, "no epoch is planned yet"
        return coverage(self._planned[1], len(self.dataset))

    def observe(self, video: Float[Tensor, "B D"], text: Float[Tensor, "B D"], video_ids: Int[Tensor, " B"]) -> None:
        """The embeddings of one training batch of this rank, for `reuse_embeddings`."""
        if self.means is not None:
            self.means.add(video, text, video_ids)

    def _new_clusters(self, epoch: int, model: nn.Module) -> Int[np.ndarray, "C K"]:
        def embed(*, gather: bool = True) -> np.ndarray:
            if self.means is not None:
                return self.means.merge()
            vectors = embed_dataset(
                model, self.dataset, seed=self.seed, epoch=epoch, num_workers=self.num_workers, gather=gather
            )
            if self.reuse_embeddings:
                self.means = RunningMeans(vectors)
            return vectors

        with torch.random.fork_rng():
            clusters: np.ndarray = self.sampler.clusters(epoch, embed)
        return clusters


def write_clusters(path: Path, clusters: Int[np.ndarray, "C K"], run: Mapping[str, object]) -> None:
    """`run` says what the clusters were made for: epoch, seed, number of videos, the sampler's settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {key: str(value) for key, value in run.items()} | {"sha256": clusters_digest(clusters)}
    atomic_write(path, lambda beside: save_file({"clusters": np.ascontiguousarray(clusters)}, beside, metadata))


def read_clusters(path: Path, run: Mapping[str, object]) -> Int[np.ndarray, "C K"] | None:
    """The clusters that a resumed run stopped in, or None where the file was made for something else or is not there.

    Of the same epoch made for other settings, a warning says which.
    """
    if not path.is_file():
        return None
    try:
        with safe_open(path, framework="np") as file:
            metadata, clusters = file.metadata(), np.asarray(file.get_tensor("clusters"))
    except SafetensorError as error:
        raise ValueError(f"{path} is damaged ({error}): remove it to draw the epoch's clusters again") from error
    if metadata["sha256"] != clusters_digest(clusters):
        raise ValueError(f"{path} is damaged (checksum): remove it to draw the epoch's clusters again")
    changed = [key for key, value in run.items() if metadata.get(key) != str(value)]
    if changed and "epoch" not in changed:
        differences = ", ".join(f"{key} was {metadata.get(key)} and is {run[key]}" for key in changed)
        logger.warning("%s is not used, the epoch's clusters are drawn again: %s", path, differences)
    return None if changed else clusters


def clusters_digest(clusters: Int[np.ndarray, "C K"]) -> str:
    return hashlib.sha256(np.ascontiguousarray(clusters).tobytes()).hexdigest()
