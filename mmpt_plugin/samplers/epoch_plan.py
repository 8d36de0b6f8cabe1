"""The clusters of videos of each epoch: drawn once per epoch and saved, so that a run can resume within an epoch.

B pairs in a batch, D embedding width, C clusters of K videos each.
"""

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
    """The clusters of each epoch of one data set, for any trainer. All ranks must request the same epochs."""

    sampler: Sampler
    dataset: Dataset
    seed: int
    max_epoch: int = 0
    """The last epoch of training; later epochs repeat its clusters. 0 means no limit."""
    folder: Path | None = None
    """Folder for the current epoch's clusters, next to the checkpoints; None saves none."""
    resumes: bool = False
    """Whether this run resumes, and may use clusters saved in `folder`."""
    settings: str = ""
    """The sampler's settings; saved clusters that were drawn with other settings are not used."""
    num_workers: int = 0
    """Processes that load clips to be embedded."""
    reuse_embeddings: bool = False
    """Index the embeddings passed to `observe` during the last epoch; only the first epoch embeds all videos."""
    means: RunningMeans | None = field(default=None, init=False)
    _planned: tuple[int, Int[np.ndarray, "C K"]] | None = field(default=None, init=False)

    def clusters(self, epoch: int, model: nn.Module) -> Int[np.ndarray, "C K"]:
        """Video indices, one row per cluster, drawn once per epoch with the current weights of `model`.

        Saved clusters are read instead if the run resumes; a damaged file is a ValueError.
        """
        past_the_end = 0 < self.max_epoch < epoch
        if self._planned is not None and (past_the_end or self._planned[0] == epoch):
            return self._planned[1]
        if past_the_end and self.folder is not None:
            return np.zeros((1, 1), dtype=np.int64)  # a finished run is restarted: a placeholder, never trained on
        run = {"epoch": epoch, "seed": self.seed, "num_videos": len(self.dataset), "sampler": self.settings}
        path = None if self.folder is None else self.folder / FILE
        saved = None
        if path is not None and self.resumes:
            # Only rank 0 reads the file: other ranks may not see it.
            saved = from_rank_0(lambda: read_clusters(path, run))
        clusters = self._new_clusters(epoch, model) if saved is None else saved
        self._planned = epoch, clusters
        if path is not None and saved is None and rank() == 0:
            write_clusters(path, clusters, run)
        return clusters

    def coverage(self) -> Coverage:
        """The coverage of the data set by the current epoch's clusters; call `clusters` first."""
        assert self._planned is not None, "no epoch is planned yet"
        return coverage(self._planned[1], len(self.dataset))

    def observe(self, video: Float[Tensor, "B D"], text: Float[Tensor, "B D"], video_ids: Int[Tensor, " B"]) -> None:
        """Record the embeddings of one training batch on this rank, for `reuse_embeddings`."""
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
    """Save clusters; `run` describes what they were drawn for: epoch, seed, number of videos, sampler settings."""
    path.parent.mkdir(parents=True, exist_ok=True)
    metadata = {key: str(value) for key, value in run.items()} | {"sha256": clusters_digest(clusters)}
    atomic_write(path, lambda temporary: save_file({"clusters": np.ascontiguousarray(clusters)}, temporary, metadata))


def read_clusters(path: Path, run: Mapping[str, object]) -> Int[np.ndarray, "C K"] | None:
    """The saved clusters, or None if the file is missing or was written for another epoch, seed, data or settings.

    If only the epoch matches, a warning names the differences. A damaged file is a ValueError.
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
        logger.warning("%s is not used, and the epoch's clusters are drawn again: %s", path, differences)
    return None if changed else clusters


def clusters_digest(clusters: Int[np.ndarray, "C K"]) -> str:
    """SHA-256 of the indices, in hexadecimal."""
    return hashlib.sha256(np.ascontiguousarray(clusters).tobytes()).hexdigest()
