"""Training speed on several GPUs by arithmetic, from data sheets and stated assumptions. This is not a measurement.

    python -m benchmarks.scaling
    python -m benchmarks.scaling --measured gpu.json

A step is the sum of three times, none of which hides another: computing, exchanging the embeddings of all ranks, and
reducing the gradients. (fairseq's legacy_ddp, which the projects use, reduces after the backward pass.) With
`--measured`, the rows of the GPU on which `benchmarks.gpu` ran use its fastest step in half precision and its index.
Assumed as well: the loader keeps up, and retrieval embeds as many pairs per epoch as are trained on.
"""

import argparse
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from benchmarks.step import FORWARDS_PER_STEP, needed_flops
from benchmarks.towers import made_batch
from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig

PAIRS = 512  # of a GPU in a step: 32 videos x 16 pairs (VideoCLIP, section 5.2)
PAIRS_PER_EPOCH = 17.6e6  # 1.1 million videos x 16 pairs (VideoCLIP, section 5.1)
ASSUMED_FRACTION = 0.32  # of the peak, on real tokens: the 316 of 989 TFLOP/s that docs/explanation/results.md assumes
BYTES_PER_GRADIENT = 2  # fp16 or bf16
BYTES_PER_VALUE = 4  # of embeddings, which the loss compares in float32
EMBEDDING_PASS = 1 / FORWARDS_PER_STEP  # of the time to compute an epoch: one forward pass over as many pairs
INDEX_SECONDS, INDEX_FP32 = 1.93, 67e12  # 1.1 million vectors on one H200 (docs/explanation/results.md); its data sheet
INFINIBAND_EDR = 100e9 / 8  # bytes per second of a node, in each direction
PAPER_EPOCH_HOURS = 24 / 25  # "about a day" for 25 epochs on 8 V100 (VideoCLIP, section 5.2)


@dataclass(frozen=True)
class GPU:
    """Numbers of NVIDIA's data sheet."""

    names: tuple[str, ...]
    """Parts of the names of devices with this chip; the first is its own."""
    peak: float
    """Dense half-precision operations per second of its tensor cores."""
    fp32: float
    """Operations per second in float32, by which the index is scaled."""
    nvlink: float
    """Bytes per second of all its NVLinks, both directions together."""


V100 = GPU(("V100",), peak=125e12, fp32=15.7e12, nvlink=300e9)  # SXM2, fp16
H100 = GPU(("H100", "H200"), peak=989e12, fp32=67e12, nvlink=900e9)  # SXM5, bf16


@dataclass(frozen=True)
class Cluster:
    """Nodes with eight GPUs each."""

    nodes: int
    gpu: GPU

    @property
    def ranks(self) -> int:
        return 8 * self.nodes

    @property
    def bandwidth(self) -> float:
        """Bytes per second at the slowest link of a ring through all GPUs, in one direction."""
        return self.gpu.nvlink / 2 if self.nodes == 1 else INFINIBAND_EDR

    def __str__(self) -> str:
        return f"{'' if self.nodes == 1 else f'{self.nodes} × '}8 × {self.gpu.names[0]}"


CLUSTERS = (Cluster(1, V100), Cluster(4, V100), Cluster(1, H100))


@dataclass(frozen=True)
class Work:
    """What a step of one GPU computes and sends."""

    flops: float
    """Operations on real tokens, forward and backward."""
    weights: int
    """Trained weights."""
    width: int
    """Width of an embedding."""


@dataclass(frozen=True)
class Known:
    """Figures of one GPU, assumed or measured."""

    fraction: float
    """Operations on real tokens per second, as a fraction of the GPU's peak."""
    index: float
    """Seconds to index all videos, and to search them, on one GPU."""
    measured: bool = False


@dataclass(frozen=True)
class Estimate:
    """Seconds of a step and of an epoch."""

    compute: float
    gather: float
    all_reduce: float
    pairs_per_s: float
    """Of all GPUs, while they train."""
    epoch: float
    index: float
    share: float
    """Of an epoch, that retrieval takes."""


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--measured", type=Path, metavar="OUT", help="JSON file of benchmarks.gpu")
    arguments = parser.parse_args()
    results = json.loads(arguments.measured.read_text(encoding="utf-8")) if arguments.measured else {}
    print("\n".join(table(full_size(), results)))


def table(work: Work, results: Mapping[str, Any]) -> list[str]:
    """Lines of Markdown."""
    lines = [
        "Arithmetic, not a measurement.",
        "",
        "| GPUs | fraction of the peak | compute, ms | gather, ms | all-reduce, ms | pairs per second | epoch, h | "
        "of which retrieval |",
        "| --- | --- | --- | --- | --- | --- | --- | --- |",
    ]
    for cluster in CLUSTERS:
        known = known_of(cluster.gpu, results)
        row = estimate(cluster, work, known)
        times = " | ".join(f"{1000 * seconds:.1f}" for seconds in (row.compute, row.gather, row.all_reduce))
        lines.append(
            f"| {cluster} | {known.fraction:.2f} {'measured' if known.measured else 'assumed'} | {times} | "
            f"{row.pairs_per_s:,.0f} | {row.epoch / 3600:.2f} | {row.share:.0%} |"
        )
    ours = estimate(CLUSTERS[0], work, known_of(V100, results)).epoch / 3600
    rate = PAIRS_PER_EPOCH / PAPER_EPOCH_HOURS / 3600 / CLUSTERS[0].ranks
    return [
        *lines,
        "",
        f"A step of {PAIRS} pairs per GPU needs {work.flops / PAIRS / 1e9:.1f} GFLOP per pair. The paper's epoch took "
        f"about {PAPER_EPOCH_HOURS:.2f} h on {CLUSTERS[0]}, with retrieval: {rate:.0f} pairs per second and GPU, "
        f"{rate * work.flops / PAIRS / V100.peak:.2f} of the peak. The row above has {ours:.2f} h.",
    ]


def full_size() -> Work:
    """The model of the paper, on clips and texts with the lengths of pre-training."""
    config = VideoCLIPConfig()
    with torch.device("meta"):
        weights = sum(weight.numel() for weight in VideoCLIP(config).parameters())
    flops = FORWARDS_PER_STEP * needed_flops(config, made_batch(PAIRS, config))
    return Work(flops=flops, weights=weights, width=config.hidden_size)


def known_of(gpu: GPU, results: Mapping[str, Any]) -> Known:
    """The figures of `benchmarks.gpu` if it ran on this GPU, the fastest step in half precision; otherwise assumed."""
    same = any(name in results.get("device", "") for name in gpu.names)
    parts = results["parts"] if same else {}
    steps = {**parts.get("step", {}), **parts.get("compiled", {})}
    rates = [figures["needed_flops_per_s"] for name, figures in steps.items() if not name.startswith("float32")]
    index = parts.get("index", {}).get("1100000", {}).get("seconds", INDEX_SECONDS * INDEX_FP32 / gpu.fp32)
    return Known(max(rates) / gpu.peak if rates else ASSUMED_FRACTION, index, measured=bool(rates))


def estimate(cluster: Cluster, work: Work, known: Known) -> Estimate:
    """The times of a step and of an epoch."""
    others = cluster.ranks - 1
    compute = work.flops / (known.fraction * cluster.gpu.peak)
    embeddings = PAIRS * 2 * work.width * BYTES_PER_VALUE  # of the two towers
    # Forward, every rank receives those of the others; backward, a ring reduces the gradients of all.
    gather = (others * embeddings + ring(cluster.ranks, cluster.ranks * embeddings)) / cluster.bandwidth
    all_reduce = ring(cluster.ranks, work.weights * BYTES_PER_GRADIENT) / cluster.bandwidth
    pairs_per_s = cluster.ranks * PAIRS / (compute + gather + all_reduce)
    training = PAIRS_PER_EPOCH / pairs_per_s
    index = known.index / cluster.ranks  # the ranks share the search
    retrieval = EMBEDDING_PASS * PAIRS_PER_EPOCH / (cluster.ranks * PAIRS) * compute + index
    epoch = training + retrieval
    return Estimate(compute, gather, all_reduce, pairs_per_s, epoch, index, retrieval / epoch)


def ring(ranks: int, size: float) -> float:
    """Bytes that each rank sends in a ring's all-reduce of `size` bytes."""
    return 2 * (ranks - 1) / ranks * size


if __name__ == "__main__":
    main()
