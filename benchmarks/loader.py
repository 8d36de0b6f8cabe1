"""Speed of the loader for overlapped clips: in one process, and up to the model through fairseq's iterator.

    python -m benchmarks.loader --json

The shards are generated and similar to HowTo100M: 267 s of 512-d float16 features and 85 captions of 7 tokens per
video. A batch has 32 videos x 16 pairs. In one process, making batches is compared with copying as many bytes as the
pairs have (feature rows and tokens, without padding), from memory that is not in the cache to memory that is.

End to end, a task and a trainer are built as `mmpt train` builds them; the figure includes collation, the copies
between loader processes, fairseq's buffer, pinned memory and the copy to the GPU, where there is one. It is measured
from the first batch of an epoch to the last, without any training. Ways alternate, and each figure is a median.
"""

import argparse
import json
import logging
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fairseq import tasks
from fairseq.data.iterators import BackgroundConsumer
from fairseq.trainer import Trainer
from jaxtyping import Int

from mmpt_plugin.batch import Cluster
from mmpt_plugin.datasets import OverlappedClips, OverlappedClipsConfig
from mmpt_plugin.fairseq_bridge.train import fairseq_config
from mmpt_plugin.protocols import Embed
from mmpt_plugin.registry import register_sampler
from mmpt_plugin.shards.writer import ShardWriter

VIDEOS, SECONDS, CAPTIONS, TOKENS, WIDTH = 1024, 267, 85, 7, 512
VIDEOS_PER_BATCH, PAIRS_PER_VIDEO = 32, 16
PAIRS = VIDEOS_PER_BATCH * PAIRS_PER_VIDEO
ROUNDS = 3
MODEL = {  # the smallest possible: it is built, as the task needs one, but not used
    "_name": "videoclip", "feature_dim": WIDTH, "hidden_size": 8, "num_attention_heads": 1, "intermediate_size": 8,
    "num_video_layers": 1, "num_text_layers": 1,
}  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--workers", type=int, nargs="+", default=[0, 1, 2], help="loader processes (default: 0 1 2)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    result = measure(arguments.batches, arguments.workers)
    print(
        f"{result['pairs_per_s']:,.0f} pairs/s in one process; copying their bytes "
        f"({result['bytes_per_pair']:,.0f} per pair) takes {result['copy_fraction']:.2f} of the time"
    )
    for workers, line in result["end_to_end"].items():
        print(
            f"{line['pairs_per_s']:,.0f} pairs/s reach the {line['device']} with --num-workers {workers}: "
            f"{line['ratio']:.2f} of one process"
        )
    if arguments.json:
        print(json.dumps(result))


def measure(num_batches: int, workers: Sequence[int]) -> dict[str, Any]:
    """The figures in one process, and end to end for each number of loader processes."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_shards(folder / "shards")
        config = OverlappedClipsConfig(splits={"train": f"{folder}/shards"}, pairs_per_video=PAIRS_PER_VIDEO)
        dataset = OverlappedClips(config)
        result = in_one_process(dataset, num_batches)
        rates: dict[int, list[float]] = {number: [] for number in workers}
        trainers = {number: build_trainer(folder, num_batches, number) for number in workers}
        for epoch in range(1, ROUNDS + 1):
            for number, trainer in trainers.items():
                rates[number].append(reaching_the_model(trainer, epoch))
    device = "GPU" if torch.cuda.is_available() else "CPU"
    result["end_to_end"] = {}
    for number, measured in rates.items():
        rate = statistics.median(measured)
        result["end_to_end"][str(number)] = {
            "pairs_per_s": rate, "ratio": rate / result["pairs_per_s"], "device": device
        }  # fmt: skip
    return result


def make_shards(folder: Path) -> None:
    rng = np.random.default_rng(0)
    block = rng.standard_normal((SECONDS, WIDTH)).astype(np.float16)
    starts = np.arange(CAPTIONS) * (SECONDS / CAPTIONS)
    times = np.stack([starts, starts + 3.05], axis=1).astype(np.float32)
    tokenizer = {"name": "made", "cls_id": 101, "sep_id": 102, "pad_id": 0}
    with ShardWriter(folder, feature_dim=WIDTH, encoder="made", tokenizer=tokenizer) as writer:
        for i in range(VIDEOS):
            writer.add(
                f"v{i}", np.roll(block, i, axis=0), times, rng.integers(1000, 30000, (CAPTIONS, TOKENS)).tolist()
            )


def drawn(num_batches: int) -> Int[np.ndarray, "C K"]:
    """The videos of each batch."""
    rng = np.random.default_rng(1)
    return np.stack([rng.choice(VIDEOS, VIDEOS_PER_BATCH, replace=False) for _ in range(num_batches)])


def in_one_process(dataset: OverlappedClips, num_batches: int) -> dict[str, Any]:
    """Alternate batches and copies of the same bytes, so that both run under the same machine load."""
    clusters = [Cluster(0, 1, number, tuple(videos)) for number, videos in enumerate(drawn(num_batches).tolist())]
    source = np.ones(1 << 30, dtype=np.uint8)
    target = np.ones(1 << 26, dtype=np.uint8)
    batch_times, copy_times, real_bytes = [], [], []
    for number, cluster in enumerate(clusters):
        batch = dataset[cluster]  # warm-up: loads the pages of this cluster's videos, to exclude the disk
        size = int(batch.video_mask.sum()) * WIDTH * 2 + int(batch.text_mask.sum()) * 4
        del batch
        batch_times.append(timed(lambda cluster=cluster: dataset[cluster]))  # type: ignore[misc]
        begin = (number * size) % (len(source) - size)
        copy_times.append(timed(lambda a=begin, n=size: np.copyto(target[:n], source[a : a + n])))  # type: ignore[misc]
        real_bytes.append(size)
    seconds, copy_seconds = statistics.median(batch_times), statistics.median(copy_times)
    return {
        "pairs_per_s": PAIRS / seconds,
        "copy_fraction": copy_seconds / seconds,
        "copy_bytes_per_s": statistics.median(real_bytes) / copy_seconds,
        "bytes_per_pair": statistics.median(real_bytes) / PAIRS,
        "batches": num_batches,
    }


@dataclass(kw_only=True)
class DrawnConfig:
    """The number of batches of an epoch."""

    num_batches: int = 100
    """Batches of an epoch."""


@register_sampler("benchmark_drawn", dataclass=DrawnConfig)
class Drawn:
    """The same batches as in one process, in every epoch."""

    def __init__(self, config: DrawnConfig, **_: Any) -> None:
        self.config = config

    def clusters(self, epoch: int, embed: Embed) -> Int[np.ndarray, "C K"]:
        """See `drawn`."""
        return drawn(self.config.num_batches)


def reaching_the_model(trainer: Any, epoch: int) -> float:
    """Pairs per second that a trainer's iterator passes on, on the trainer's device."""
    batches = trainer.get_train_iterator(epoch).next_epoch_itr()
    trainer._prepare_sample(next(batches))
    start, number = time.perf_counter(), 0
    for batch in batches:
        trainer._prepare_sample(batch)
        number += 1
    if trainer.cuda:
        torch.cuda.synchronize()
    seconds = time.perf_counter() - start
    for thread in threading.enumerate():
        if isinstance(thread, BackgroundConsumer):  # of fairseq's buffer: it still ends the loader processes
            thread.join()
    return PAIRS * number / seconds


def build_trainer(folder: Path, num_batches: int, workers: int) -> Any:
    """fairseq's trainer with the adapted task, in fp16 on a GPU, as its command line builds them."""
    project: dict[str, Any] = {
        "task": {
            "_name": "video_text_pretraining",
            "dataset": {
                "_name": "overlapped_clips",
                "splits": {"train": f"{folder}/shards"},
                "pairs_per_video": PAIRS_PER_VIDEO,
                "verify_checksums": False,
            },
        },
        "model": MODEL,
        "criterion": {"_name": "nce"},
        "sampler": {"_name": "benchmark_drawn", "num_batches": num_batches},
        "common": {"fp16": True},
        "dataset": {"batch_size": 1, "num_workers": workers, "disable_validation": True},
        "optimization": {"max_epoch": ROUNDS, "lr": [1e-4]},
        "optimizer": {"_name": "adam"},
        "lr_scheduler": {"_name": "polynomial_decay", "total_num_update": num_batches},
        "checkpoint": {"save_dir": str(folder)},
    }
    for name in ("fairseq", "mmpt_plugin"):
        logging.getLogger(name).setLevel(logging.WARNING)
    config = fairseq_config(project)
    task = tasks.setup_task(config.task)
    model = task.build_model(config.model)
    return Trainer(config, task, model, task.build_criterion(config.criterion))


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
