"""Adapts registered tasks to fairseq's trainer: plans the batches of each epoch with the weights at its start."""

import logging
import os
from functools import partial
from pathlib import Path
from typing import Any

from fairseq.logging import metrics
from fairseq.tasks import FairseqTask, register_task
from omegaconf import II, open_dict

from mmpt_plugin.distributed import from_rank_0, rank, world_size
from mmpt_plugin.fairseq_bridge import preemption
from mmpt_plugin.fairseq_bridge.dataclass import core_config, fairseq_dataclass, flow
from mmpt_plugin.fairseq_bridge.dataset import BenchmarkOnly, ClusterDataset
from mmpt_plugin.fairseq_bridge.iterator import ClusterIterator
from mmpt_plugin.fairseq_bridge.preemption import LAST
from mmpt_plugin.fairseq_bridge.schedule import fit_schedule, total_updates
from mmpt_plugin.models import Embedder
from mmpt_plugin.registry import Entry
from mmpt_plugin.samplers.epoch_plan import EpochPlan

logger = logging.getLogger(__name__)

NO_LOSS = "no_loss"  # key of the logging output of a validation that consists of the benchmark

# Values from fairseq's other groups that the task needs.
FROM_OTHER_GROUPS: tuple[tuple[str, type, Any], ...] = (
    ("seed", int, II("common.seed")),
    ("max_epoch", int, II("optimization.max_epoch")),
    ("num_workers", int, II("dataset.num_workers")),
    ("save_dir", str, II("checkpoint.save_dir")),
    ("train_subset", str, II("dataset.train_subset")),
    ("disable_validation", bool, II("dataset.disable_validation")),
    ("best_checkpoint_metric", str, II("checkpoint.best_checkpoint_metric")),
    ("warmup_fraction", float, 0.0),  # of all updates, instead of warmup_updates
)


class FairseqTaskAdapter(FairseqTask):
    """Serves a registered task's data to fairseq, and plans each epoch; `mirror_task` makes a subclass per task."""

    entry: Entry[Any]
    source_dictionary = target_dictionary = None

    def __init__(self, config: Any) -> None:
        super().__init__(config)
        require_all_processes()
        self.task = self.entry.build(core_config(self.entry, config))
        self.model: Any = None
        self.criterion: Any = None
        self.measured: tuple[int, dict[str, float]] = (-1, {})
        self.has_loss = True  # of the last batch
        self.plans: dict[int, EpochPlan] = {}  # key: the id() of a ClusterDataset, which fairseq passes back
        # fairseq's count of updates cannot show this: with weights to fine-tune, it is that of their pre-training.
        self.resumes: bool = from_rank_0(lambda: (Path(config.save_dir) / LAST).exists())
        if hasattr(self.task, "train_split"):
            self.task.train_split = config.train_subset
        if config.disable_validation and getattr(getattr(self.task, "config", None), "benchmark", None) and rank() == 0:
            logger.warning("task.benchmark is not evaluated, because dataset.disable_validation is true")

    def build_model(self, config: Any, from_checkpoint: bool = False) -> Any:
        """See `FairseqTask.build_model`; also stores the backbone's sizes in the model's configuration."""
        self.model = super().build_model(config, from_checkpoint)
        # Store the backbone's sizes in checkpoints, because the starting weights they come from may be gone later.
        if found := getattr(getattr(self.model.model, "config", None), "backbone", None):
            with open_dict(config):
                config.backbone = flow(found)
        return self.model

    def build_criterion(self, config: Any, **options: Any) -> Any:
        """Open the training data here, before the trainer builds the schedule, whose length depends on its size."""
        self.load_dataset(self.cfg.train_subset)
        self.fit_schedule()
        self.criterion = super().build_criterion(config, **options)
        return self.criterion

    def fit_schedule(self) -> None:
        """Fit the learning-rate schedule to the number of updates, if the sampler knows its number of clusters."""
        whole = self.cfg._get_parent()  # fairseq keeps all groups in one configuration
        schedule = None if whole is None else whole.get("lr_scheduler")
        if schedule is None:
            return
        sampler = self.plans[id(self.datasets[self.cfg.train_subset])].sampler
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
        """Open a split once, and plan its batches; ValueError if the model does not fit the data.

        If validation is disabled, only the training split is opened.
        """
        # fairseq 0.12.2 loads the validation split even if validation is disabled.
        if split in self.datasets or (self.cfg.disable_validation and split != self.cfg.train_subset):
            return
        benchmark_only = getattr(self.task, "has_benchmark_only", None)
        if split != self.cfg.train_subset and benchmark_only is not None and benchmark_only(split):
            self.load_benchmark_only(split)
            return
        dataset = self.task.dataset(split)
        if isinstance(self.model.model, Embedder):
            self.model.model.check_dataset(dataset, where=f"split '{split}'")
        self.datasets[split] = ClusterDataset(dataset)
        training = split == self.cfg.train_subset
        plan = EpochPlan(
            sampler=self.task.sampler(dataset, split=split, seed=self.cfg.seed),
            dataset=dataset,
            seed=self.cfg.seed,
            max_epoch=self.cfg.max_epoch,
            folder=Path(self.cfg.save_dir) if training else None,
            resumes=self.resumes,
            settings=flow(getattr(self.task.config, "sampler", {})),
            num_workers=self.cfg.num_workers,
            reuse_embeddings=training and getattr(self.task.config, "reuse_training_embeddings", False),
        )
        self.plans[id(self.datasets[split])] = plan
        if plan.reuse_embeddings:
            self.model.register_forward_hook(partial(show_embeddings, plan), with_kwargs=True)

    def load_benchmark_only(self, split: str) -> None:
        """Validate with the benchmark alone; ValueError if the best checkpoint depends on a validation loss."""
        if self.cfg.best_checkpoint_metric == "loss":
            raise ValueError(
                f"there is no split '{split}' (task.dataset.splits), so the best checkpoint can't be the one of the "
                "lowest validation loss: set checkpoint.best_checkpoint_metric to a metric of task.benchmark, such as "
                "t2v_recall@10, and checkpoint.maximize_best_checkpoint_metric=true"
            )
        benchmark = self.task.build_benchmark()
        if hasattr(benchmark, "check"):
            benchmark.check(self.model.model)
        self.datasets[split] = BenchmarkOnly()

    def get_batch_iterator(self, dataset: ClusterDataset | BenchmarkOnly, **kwargs: Any) -> Any:
        """Plan the epoch. fairseq calls this before every epoch, with the weights that the epoch starts from."""
        if isinstance(dataset, BenchmarkOnly):
            return super().get_batch_iterator(dataset, **kwargs)
        epoch, num_shards = kwargs.get("epoch", 1), kwargs.get("num_shards", 1)
        plan = self.plans[id(dataset)]
        clusters = plan.clusters(epoch, self.model.model)
        dataset.plan(clusters, seed=self.cfg.seed, epoch=epoch, num_shards=num_shards, fill=plan.folder is not None)
        iterator = super().get_batch_iterator(dataset, **kwargs)
        iterator.__class__ = ClusterIterator  # fairseq hard-codes its class
        # The sampler's order is already random, and the same for any number of processes.
        iterator.disable_shuffling = True
        iterator.shuffle = False
        # The loader is used for this epoch only; persistent workers would delay the next epoch by seconds.
        iterator.persistent_workers = False
        return iterator

    def begin_epoch(self, epoch: int, model: Any) -> None:
        """Log the share of the videos that the epoch shows."""
        super().begin_epoch(epoch, model)
        if self.criterion is not None:
            self.criterion.expect_pairs(None)  # a sampler may make clusters of another size
        keep_one_log_file()
        counted = self.plans[id(self.datasets[self.cfg.train_subset])].coverage()
        metrics.log_scalar("coverage", counted.share, round=4)
        metrics.log_scalar("videos_repeated", counted.repeated)

    def valid_step(self, sample: Any, model: Any, criterion: Any) -> Any:
        """Evaluate a benchmark once per validation, on every rank; its metrics replace those of the same name."""
        if self.measured[0] != self.model.num_updates and hasattr(self.task, "measure"):
            self.measured = (self.model.num_updates, self.task.measure(self.model.model))
        if "benchmark" in sample:
            return 0.0, 1, {"nsentences": 0, "ntokens": 0, NO_LOSS: 1}
        loss, size, log = super().valid_step(sample, model, criterion)
        return loss, size, {name: value for name, value in log.items() if name not in self.measured[1]}

    def reduce_metrics(self, logging_outputs: Any, criterion: Any) -> None:
        """See `FairseqTask.reduce_metrics`; also reads stop flags, or in validation logs the benchmark's metrics."""
        for log in logging_outputs:
            log["ntokens"] = int(log.get("ntokens", 0))  # fairseq would store a tensor in checkpoints
        self.has_loss = not any(NO_LOSS in log for log in logging_outputs)
        if self.has_loss:
            super().reduce_metrics(logging_outputs, criterion)
        else:
            metrics.log_scalar("loss", 0.0)  # fairseq requires one; `post_validate` removes it
        if criterion.training:
            preemption.agree(logging_outputs)
            pairs = sum(log.get("nsentences", 0) for log in logging_outputs)
            metrics.log_speed("pairs_per_second", pairs, priority=95, round=1)
        else:
            for name, value in self.measured[1].items():
                metrics.log_scalar(name, value, round=4)

    def post_validate(self, model: Any, stats: dict[str, Any], aggregator: Any) -> None:
        """fairseq calls this before it logs the values of a validation: remove the loss that does not exist."""
        if not self.has_loss:
            stats.pop("loss", None)


def show_embeddings(plan: EpochPlan, model: Any, _: Any, sample: dict[str, Any], embeddings: Any) -> None:
    """Forward hook that passes the embeddings of training batches to the epoch plan."""
    if model.training:
        video, text = embeddings
        plan.observe(video, text, sample["video_ids"])


def keep_one_log_file() -> None:
    """Keep one handler: fairseq opens --log-file again in every epoch, so the tenth would write each line ten times."""
    log = logging.getLogger("fairseq.logging.progress_bar")
    for handler in [handler for handler in log.handlers if isinstance(handler, logging.FileHandler)][:-1]:
        log.removeHandler(handler)
        handler.close()


def require_all_processes() -> None:
    """ValueError if WORLD_SIZE is set by a launcher but unknown to fairseq, which would train independent copies."""
    launched = int(os.environ.get("WORLD_SIZE", "1"))
    if launched > 1 and world_size() == 1:
        raise ValueError(
            f"WORLD_SIZE is {launched}, but fairseq uses one process: add --distributed-world-size {launched} "
            "--distributed-init-method env:// --distributed-rank -1 --distributed-no-spawn"
        )


def mirror_task(entry: Entry[Any]) -> None:
    """Register a task with fairseq, under the same name."""
    adapter = type(f"Fairseq{entry.cls.__name__}", (FairseqTaskAdapter,), {"entry": entry})
    config = fairseq_dataclass(entry, f"{adapter.__name__}Config", FROM_OTHER_GROUPS)
    register_task(entry.name, dataclass=config)(adapter)
