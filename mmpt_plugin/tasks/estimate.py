"""Estimates of the GPU memory and the time of a training, from its parameters and a few of its clips."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from mmpt_plugin.batch import Cluster
from mmpt_plugin.tasks.preflight import GIB, num_weights

MEASURED = 8  # clips whose activations and operations are counted

# Floating-point operations per second of one V100 in the paper's training: "about a day" on eight of them for 25 epochs
# of 1.1 million videos x 16 pairs, of 39.9 GFLOP each (BERT-base, with backward pass), index and embedding included.
PAPER_RATE = 25 * 1.1e6 * 16 * 39.9e9 / (24 * 3600 * 8)

# Bytes per trained parameter. float32: weight, gradient, and Adam's two averages. Half precision, as fairseq trains:
# weight and gradient in 2 bytes, and those of float32 too.
FLOAT32, HALF = 4 + 4 + 8, 2 + 2 + 4 + 4 + 8


class Memory(NamedTuple):
    """Bytes on each GPU: an estimate, see `estimate_cost`."""

    weights: int
    """Weights, gradients and Adam's averages."""
    activations: int
    """What the backward pass keeps of a batch."""
    clips: int
    """Clips in memory at a time: those of a batch, or `model.chunk_size`."""

    def __str__(self) -> str:
        return (
            f"{(self.weights + self.activations) / GIB:.2f} GiB: {self.weights / GIB:.2f} for weights, gradients and "
            f"Adam, {self.activations / GIB:.2f} for the activations of {self.clips} clips"
        )


class Cost(NamedTuple):
    """What an update needs on each GPU: an estimate, see `estimate_cost`."""

    memory: Memory
    flop: int
    """Floating-point operations of the forward and the backward pass."""

    def time(self, updates: int) -> str:
        """The time of a training, as text."""
        flop = self.flop * updates
        minutes = flop / PAPER_RATE / 60
        length = f"{minutes / 60:.1f} hours" if minutes >= 60 else f"{math.ceil(minutes)} min"
        return (
            f"{length} on GPUs as fast as a V100 was for the paper's authors, {PAPER_RATE / 1e12:.0f} TFLOP/s "
            f"({flop:.1e} operations on each GPU; reading and decoding not included)"
        )


def estimate_cost(project: Mapping[str, Any], model: Any, dataset: Any) -> Cost:
    """Estimate the memory of a training on each GPU, and the operations of an update.

    Weights, gradients and Adam's averages take 16 bytes per trained parameter, 20 in fp16 and bf16, and 4 or 2 if it is
    frozen. Activations are the tensors that autograd keeps of a few clips in float32 on the CPU, times the clips of a
    batch, and half of that in fp16 and bf16. A GPU may keep less, because its attention stores no matrix of weights.
    What CUDA itself and the allocator need is not counted.

    Operations are those of matrix products and convolutions, counted on the same clips. With `model.chunk_size`, the
    forward pass is computed twice.
    """
    common = project.get("common") or {}
    half = bool(common.get("fp16") or common.get("bf16"))
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    frozen = num_weights(model) - trained
    weights = trained * (HALF if half else FLOAT32) + frozen * (2 if half else 4)

    one = measure(model, dataset)
    per_batch = (project.get("sampler") or {}).get("cluster_size", 1)
    per_batch *= (project.get("dataset") or {}).get("batch_size") or 1
    clips = per_batch * one.clips
    chunk = int(getattr(model.config, "chunk_size", 0) or 0)
    in_memory = min(clips, chunk or math.inf)
    memory = Memory(weights, int(one.bytes * in_memory / one.clips) // (2 if half else 1), int(in_memory))
    batches = ((project.get("optimization") or {}).get("update_freq") or [1])[0]
    flop = one.forward * (2 if 0 < chunk < clips else 1) + one.backward
    return Cost(memory, int(flop * per_batch * batches))


class Video(NamedTuple):
    """What the clips of one video need, on average."""

    clips: float
    bytes: float
    """Activations in float32."""
    forward: float
    """Floating-point operations."""
    backward: float


def measure(model: Any, dataset: Any) -> Video:
    """Run a few clips of a data set through a model, forward and backward."""
    videos = 1
    batch = dataset[Cluster(1, 1, 0, (0,))]
    if len(batch) < MEASURED:
        videos = min(len(dataset), math.ceil(MEASURED / len(batch)))
        batch = dataset[Cluster(1, 1, 0, tuple(range(videos)))]
    chunk = getattr(model.config, "chunk_size", 0)
    model.config.chunk_size = 0  # with chunks, the backward pass computes the activations again
    try:
        saved, forward, backward = counted(model.train(), batch)
    finally:
        model.config.chunk_size = chunk
    return Video(len(batch) / videos, saved / videos, forward / videos, backward / videos)


def counted(model: nn.Module, batch: Any) -> tuple[int, int, int]:
    """Bytes that autograd keeps for the backward pass, and the operations of the forward and the backward pass.

    Tensors other than parameters are counted. The parameters get no gradients.
    """
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with FlopCounterMode(display=False) as counter:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            outputs = model(batch)
        forward = counter.get_total_flops()
        result = sum(output.sum() for output in outputs if output.requires_grad)
        torch.autograd.grad(
            result, [weight for weight in model.parameters() if weight.requires_grad], allow_unused=True
        )
        return sum(kept.values()), forward, counter.get_total_flops() - forward
