"""Speed of one loader process for overlapped clips, compared with copying the same bytes in memory.

    python -m benchmarks.loader --json

The shards are generated and similar to HowTo100M: 267 s of 512-d float16 features and 85 captions of 7 tokens per
video. A batch has 32 videos x 16 pairs. The copy has as many bytes as the pairs (feature rows and tokens, without
padding), from memory that is not in the cache to memory that is.
"""

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from mmpt_plugin.batch import Cluster
from mmpt_plugin.datasets import OverlappedClips, OverlappedClipsConfig
from mmpt_plugin.shards.writer import ShardWriter

VIDEOS, SECONDS, CAPTIONS, TOKENS, WIDTH = 1024, 267, 85, 7, 512
VIDEOS_PER_BATCH, PAIRS_PER_VIDEO = 32, 16


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--batches", type=int, default=100)
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_shards(Path(folder) / "shards")
        config = OverlappedClipsConfig(splits={"train": f"{folder}/shards"}, pairs_per_video=PAIRS_PER_VIDEO)
        result = measure(OverlappedClips(config), arguments.batches)
    print(
        f"{result['pairs_per_s']:,.0f} pairs/s in one process; copying their bytes "
        f"({result['bytes_per_pair']:,.0f} per pair) takes {result['copy_fraction']:.2f} of the time"
    )
    if arguments.json:
        print(json.dumps(result))


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


def measure(dataset: OverlappedClips, num_batches: int) -> dict[str, Any]:
    """Alternate batches and copies of the same bytes, so that both run under the same machine load."""
    rng = np.random.default_rng(1)
    clusters = [
        Cluster(0, 1, number, tuple(rng.choice(VIDEOS, VIDEOS_PER_BATCH, replace=False).tolist()))
        for number in range(num_batches)
    ]
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
    pairs = VIDEOS_PER_BATCH * PAIRS_PER_VIDEO
    seconds, copy_seconds = statistics.median(batch_times), statistics.median(copy_times)
    return {
        "pairs_per_s": pairs / seconds,
        "copy_fraction": copy_seconds / seconds,
        "copy_bytes_per_s": statistics.median(real_bytes) / copy_seconds,
        "bytes_per_pair": statistics.median(real_bytes) / pairs,
        "batches": num_batches,
    }


def timed(action: Callable[[], object]) -> float:
    start = time.perf_counter()
    action()
    return time.perf_counter() - start


if __name__ == "__main__":
    main()
