"""A registered task as fairseq's trainer wants it: it plans each epoch's batches with the weights of that moment."""

import logging
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq.logging import metrics
from fairseq.tasks import FairseqTask, register_task
from jaxtyping import Int
from omegaconf import II, open_dict

from mmpt_plugin.distributed import from_rank_0, rank, world_size
from mmpt_plugin.fairseq_bridge import stopping
from mmpt_plugin.fairseq_bridge.dataclass import core_config, fairseq_dataclass, flow
from mmpt_plugin.fairseq_bridge.dataset import ClusterDataset
from mmpt_plugin.fairseq_bridge.iterator import ClusterIterator
from mmpt_plugin.fairseq_bridge.resuming import LAST
from mmpt_plugin.fairseq_bridge.schedule import fit_schedule, total_updates
from mmpt_plugin.models import Embedder
from mmpt_plugin.registry import Entry
from mmpt_plugin.samplers.coverage import coverage
from mmpt_plugin.samplers.saved import read_clusters, write_clusters
from mmpt_plugin.tasks.pretraining import embed_videos
from mmpt_plugin.tasks.running_means import RunningMeans

logger = logging.getLogger(__name__)

# What the task must know of fairseq's other groups.
FROM_OTHER_GROUPS: tuple[tuple[str, type, Any], ...] = (
    ("seed", int, II("common.seed")),
    ("max_epoch", int, II("optimization.max_epoch")),
    ("num_workers", int, II("dataset.num_workers")),
    ("save_dir", str, II("checkpoint.save_dir")),
    ("train_subset", str, II("dataset.train_subset")),
    ("disable_validation", bool, II("dataset.disable_validation")),
    ("warmup_fraction", float, 0.0),  # of all updates, instead of warmup_updates
)


class FairseqTaskAdapter(FairseqTask):
    entry: Entry
    source_dictionary = target_dictionary = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        require_all_processes()
        self.task = self.entry.build(core_config(self.entry, config))
        self.model: Any = None
        self.means: RunningMeans | None = None
        self.measured: tuple[int, dict[str, float]] = (-1, {})
        self.samplers: dict[int, Any] = {}
        self.planned: dict[int, tuple[int, Int[np.ndarray, "C K"]]] = {}
        # fairseq's own count of updates does not tell: on weights to fine-tune it is that of their pre-training.
        self.resumes: bool = from_rank_0(lambda: (Path(config.save_dir) / LAST).exists())
        if hasattr(self.task, "train_split"):
            self.task.train_split = config.train_subset

    def build_model(self, config: Any, from_checkpoint: bool = False) -> Any:
        self.model = super().build_model(config, from_checkpoint)
        # What a model finds at its start, the sizes of its backbone, belongs into checkpoints: the start may be gone.
        if found := getattr(getattr(self.model.model, "config", None), "backbone", None):
            with open_dict(config):
                config.backbone = flow(found)
        return self.model

    def build_criterion(self, config: Any, **options: Any) -> Any:
        """The training data is opened here, before the trainer builds the schedule that its size decides."""
        self.load_dataset(self.cfg.train_subset)
        self.fit_schedule()
        return super().build_criterion(config, **options)

    def fit_schedule(self) -> None:
        whole = self.cfg._get_parent()  # fairseq keeps all groups in one configuration
        schedule = None if whole is None else whole.get("lr_scheduler")
        if schedule is None:
            return
        sampler = self.samplers[id(self.datasets[self.cfg.train_subset])]
        total = 0
        if (num_clusters := getattr(sampler, "num_clusters", None)) is not None:
            total = total_updates(
                num_clusters,
                batch_size=whole.dataset.batch_size or 1,
                world_size=world_size(),
                update_freq=whole.optimization.update_freq,
                max_epoch=whole.optimization.max_epoch or 0,
                max_update=whole.optimization.max_update or 0,
            )
        fit_schedule(schedule, total, warmup_fraction=self.cfg.warmup_fraction)

    def load_dataset(self, split: str, **kwargs: Any) -> None:
        # fairseq 0.12.2 asks for the validation split even where validation is off.
        if split in self.datasets or (self.cfg.disable_validation and split != self.cfg.train_subset):
            return
        dataset = self.task.dataset(split)
        if isinstance(self.model.model, Embedder):
            self.model.model.check_dataset(dataset, where=f"split '{split}'")
        self.datasets[split] = ClusterDataset(dataset)
        self.samplers[id(self.datasets[split])] = self.task.sampler(dataset, split=split, seed=self.cfg.seed)

    def get_batch_iterator(self, dataset: ClusterDataset, **kwargs: Any) -> Any:
        """fairseq asks before every epoch, once the weights are those that the epoch starts from."""
        epoch, num_shards = kwargs.get("epoch", 1), kwargs.get("num_shards", 1)
        clusters = self._clusters(dataset, epoch)
        training = dataset is self.datasets.get(self.cfg.train_subset)
        dataset.plan(clusters, seed=self.cfg.seed, epoch=epoch, num_shards=num_shards, fill=training)
        iterator = super().get_batch_iterator(dataset, **kwargs)
        iterator.__class__ = ClusterIterator  # fairseq names the class where it makes one
        # The sampler's order is random already, and the same for any number of processes.
        iterator.disable_shuffling = True
        iterator.shuffle = False
        # The loader serves this epoch only; workers kept alive would hold up the next one's for seconds.
        iterator.persistent_workers = False
        return iterator

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """Puts into fairseq's log of the epoch which share of the videos it shows."""
        super().begin_epoch(epoch, model)
        keep_one_log_file()
        dataset = self.datasets[self.cfg.train_subset]
        counted = coverage(self.planned[id(dataset)][1], len(dataset.dataset))
        metrics.log_scalar("coverage", counted.share, round=4)
        metrics.log_scalar("videos_repeated", counted.repeated)

    def valid_step(self, sample: Any, model: Any, criterion: Any) -> Any:
        """A benchmark is measured once a validation, by every rank alike; batches may not have metrics of its names."""
        if self.measured[0] != self.model.num_updates and hasattr(self.task, "measure"):
            self.measured = (self.model.num_updates, self.task.measure(self.model.model))
        loss, size, log = super().valid_step(sample, model, criterion)
        return loss, size, {name: value for name, value in log.items() if name not in self.measured[1]}

    def reduce_metrics(self, logging_outputs: Any, criterion: Any) -> None:
        super().reduce_metrics(logging_outputs, criterion)
        if criterion.training:
            stopping.stop.agreed |= any(log.get(stopping.LOG_KEY, 0) > 0 for log in logging_outputs)
        else:
            for name, value in self.measured[1].items():
                metrics.log_scalar(name, value, round=4)

    def _clusters(self, dataset: ClusterDataset, epoch: int) -> Int[np.ndarray, "C K"]:
        """The epoch's clusters, worked out once; fairseq asks for one epoch past the last, which gets the last's."""
        planned_epoch, clusters = self.planned.get(id(dataset), (0, None))
        if clusters is not None and (planned_epoch == epoch or 0 < self.cfg.max_epoch < epoch):
            return clusters
        training = dataset is self.datasets.get(self.cfg.train_subset)
        if training and 0 < self.cfg.max_epoch < epoch:
            return np.zeros((1, 1), dtype=np.int64)  # of a finished run that is started again: nothing is drawn for it
        run = {
            "epoch": epoch,
            "seed": self.cfg.seed,
            "num_videos": len(dataset.dataset),
            "sampler": flow(getattr(self.task.config, "sampler", {})),
        }
        path = Path(self.cfg.save_dir) / "clusters.safetensors"
        # What rank 0 finds counts for all: another rank may not see the file.
        saved = from_rank_0(lambda: read_clusters(path, run) if training and self.resumes else None)
        clusters = saved if saved is not None else self._new_clusters(dataset, epoch)
        self.planned[id(dataset)] = (epoch, clusters)
        if training and saved is None and rank() == 0:
            write_clusters(path, clusters, run)
        return clusters

    def _new_clusters(self, dataset: ClusterDataset, epoch: int) -> Int[np.ndarray, "C K"]:
        device = next(self.model.parameters()).device

        def embed(*, gather: bool = True) -> np.ndarray:
            if self.means is not None:
                return self.means.merge()
            vectors = embed_videos(
                self.model.model,
                dataset.dataset,
                seed=self.cfg.seed,
                epoch=epoch,
                device=device,
                num_workers=self.cfg.num_workers,
                gather=gather,
            )
            if getattr(self.task.config, "reuse_training_embeddings", False):
                self.means = RunningMeans(vectors)
                self.model.register_forward_hook(self._keep_embeddings, with_kwargs=True)
            return vectors

        with torch.random.fork_rng():
            clusters: np.ndarray = self.samplers[id(dataset)].clusters(epoch, embed)
        return clusters

    def _keep_embeddings(self, model: Any, _: Any, sample: dict[str, Any], embeddings: Any) -> None:
        if model.training and self.means is not None:
            video, text = embeddings
            self.means.add(video, text, sample["video_ids"])


def keep_one_log_file() -> None:
    """fairseq opens --log-file anew every epoch, so that the tenth would write each line ten times."""
    log = logging.getLogger("fairseq.logging.progress_bar")
    for handler in [handler for handler in log.handlers if isinstance(handler, logging.FileHandler)][:-1]:
        log.removeHandler(handler)
        handler.close()


def require_all_processes() -> None:
    """A launcher's WORLD_SIZE that fairseq was not told of would train independent copies into one folder."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > 1 and world_size() == 1:
        raise ValueError(
            f"WORLD_SIZE is {launched}, but fairseq trains alone: it needs --distributed-world-size {launched} "
            "--distributed-init-method env:// --distributed-rank -1 --distributed-no-spawn"
        )


def mirror_task(entry: Entry) -> None:
    adapter = type(f"Fairseq{entry.cls.__name__}", (FairseqTaskAdapter,), {"entry": entry})
    config = fairseq_dataclass(entry, f"{adapter.__name__}Config", FROM_OTHER_GROUPS)
    register_task(entry.name, dataclass=config)(adapter)
