"""An estimate of the GPU memory of a training, from its parameters and the activations of a few of its clips."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mmpt_plugin.batch import Cluster
from mmpt_plugin.tasks.preflight import GIB, num_weights

MEASURED = 8  # clips whose activations are counted

# Bytes per trained parameter. float32: weight, gradient, and Adam's two averages. Half precision, as fairseq trains:
# weight and gradient in 2 bytes, and those of float32 too.
FLOAT32, HALF = 4 + 4 + 8, 2 + 2 + 4 + 4 + 8


class Memory(NamedTuple):
    """Bytes on each GPU: an estimate, see `estimate_memory`."""

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


def estimate_memory(project: Mapping[str, Any], model: Any, dataset: Any) -> Memory:
    """Estimate the memory of a training on each GPU.

    Weights, gradients and Adam's averages take 16 bytes per trained parameter, 20 in fp16 and bf16, and 4 or 2 if it is
    frozen. Activations are the tensors that autograd keeps of a few clips in float32 on the CPU, times the clips of a
    batch, and half of that in fp16 and bf16. A GPU may keep less, because its attention stores no matrix of weights.
    What CUDA itself and the allocator need is not counted.
    """
    common = project.get("common") or {}
    half = bool(common.get("fp16") or common.get("bf16"))
    trained = sum(weight.numel() for weight in model.parameters() if weight.requires_grad)
    frozen = num_weights(model) - trained
    weights = trained * (HALF if half else FLOAT32) + frozen * (2 if half else 4)

    per_batch = (project.get("sampler") or {}).get("cluster_size", 1)
    per_batch *= (project.get("dataset") or {}).get("batch_size") or 1
    measured, clips = activations(model, dataset)
    chunk = int(getattr(model.config, "chunk_size", 0) or 0)
    in_memory = min(per_batch * clips, chunk or math.inf)
    return Memory(weights, int(measured * in_memory / clips) // (2 if half else 1), int(in_memory))


def activations(model: Any, dataset: Any) -> tuple[int, float]:
    """Bytes that the backward pass would keep of one video's clips, and the number of these clips."""
    videos = 1
    batch = dataset[Cluster(1, 1, 0, (0,))]
    if len(batch) < MEASURED:
        videos = min(len(dataset), math.ceil(MEASURED / len(batch)))
        batch = dataset[Cluster(1, 1, 0, tuple(range(videos)))]
    chunk = getattr(model.config, "chunk_size", 0)
    model.config.chunk_size = 0  # with chunks, the backward pass computes the activations again
    try:
        return saved_bytes(model.train(), batch) // videos, len(batch) / videos
    finally:
        model.config.chunk_size = chunk


def saved_bytes(model: nn.Module, batch: Any) -> int:
    """Bytes of the tensors, other than parameters, that autograd keeps for the backward pass."""
    own = {weight.untyped_storage().data_ptr() for weight in model.parameters()}
    kept: dict[int, int] = {}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in own:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        outputs = model(batch)  # kept until here, so that no storage is freed and its address used again
        total = sum(kept.values())
    del outputs
    return total
