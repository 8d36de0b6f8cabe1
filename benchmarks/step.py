"""Time and memory of a training step (forward, backward, optimizer) for three sizes of VideoCLIP.

    python -m benchmarks.step --json

A step has 512 pairs for the tiny and the small size; the full size (BERT-base, 6 + 12 layers) uses 32 pairs on a CPU
and 512 on a GPU. Clips have the lengths of pre-training. Each size runs in its own process, to measure its peak memory.
"""

import argparse
import json
import multiprocessing
import resource
import statistics
import time
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.towers import SIZES, Forward, made_batch, packed
from mmpt_plugin.batch import Batch, places_of
from mmpt_plugin.criterions import NCE, NCEConfig
from mmpt_plugin.hardware import compute_device
from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.models.rows import groups

FORWARDS_PER_STEP = 3  # a backward pass takes twice the operations of a forward pass


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--size", choices=SIZES, action="append", help="may be repeated; default: all")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    results = {}
    for size in arguments.size or SIZES:
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            results[size] = pool.apply(measure, (size,))
        line = results[size]
        print(
            f"{size:6} {line['pairs']:4} pairs  {line['seconds']:.2f} s per step "
            f"(forward {line['forward_s']:.2f}, backward {line['backward_s']:.2f}, optim. {line['optimizer_s']:.2f})  "
            f"{line['pairs_per_s']:.1f} pairs/s  {line['peak_memory_bytes'] / 2**30:.2f} GiB, operations executed / "
            f"needed: packed {line['packed_flop_ratio']:.3f}, grouped {line['grouped_flop_ratio']:.3f}",
            flush=True,
        )
    if arguments.json:
        last = results[list(results)[-1]]
        print(json.dumps({**last, "sizes": results, "device": device_name()}))


def measure(size: str) -> dict[str, float]:
    device = compute_device()
    torch.manual_seed(0)
    model = VideoCLIP(VideoCLIPConfig(**SIZES[size])).to(device)
    slow = size == "full" and device.type == "cpu"
    batch = made_batch(32 if slow else 512, model.config)
    figures = measure_steps(model, packed, batch, steps=1 if slow else 4, warm_up=not slow)
    return figures | flop_ratios(model.config, made_batch(512, model.config))


def measure_steps(
    model: VideoCLIP, forward: Forward, batch: Batch, *, steps: int, warm_up: bool = True
) -> dict[str, float]:
    """Times of a training step of a model on its device, and the peak memory: on a GPU of these steps, on a CPU of the
    process so far."""
    device = next(model.parameters()).device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    criterion, updates, there = NCE(NCEConfig()), Updates(model.train()), batch.packed().to(device)
    for _ in range(warm_up):
        one_step(model, forward, criterion, updates, there)
    times = [one_step(model, forward, criterion, updates, there) for _ in range(steps)]
    forward_s, backward_s, optimizer_s = (statistics.median(part) for part in zip(*times, strict=True))
    seconds = forward_s + backward_s + optimizer_s
    return {
        "pairs": len(batch), "seconds": seconds, "forward_s": forward_s, "backward_s": backward_s,
        "optimizer_s": optimizer_s, "pairs_per_s": len(batch) / seconds, "peak_memory_bytes": peak_memory(device),
        "needed_flops_per_s": FORWARDS_PER_STEP * needed_flops(model.config, batch) / seconds,
    }  # fmt: skip


class Updates:
    """Adam in float32; for a model in half precision on a copy of its weights, as fairseq's optimizer for fp16."""

    def __init__(self, model: nn.Module) -> None:
        self.weights: list[Tensor] = [weight for weight in model.parameters() if weight.requires_grad]
        self.half = self.weights[0].dtype != torch.float32
        self.copies: list[Tensor] = [weight.detach().float() for weight in self.weights] if self.half else self.weights
        self.adam = torch.optim.Adam(self.copies, lr=1e-5)

    @torch.no_grad()
    def step(self) -> None:
        if self.half:
            for weight, copy in zip(self.weights, self.copies, strict=True):
                copy.grad = None if weight.grad is None else weight.grad.float()
                weight.grad = None
        self.adam.step()
        self.adam.zero_grad()
        if self.half:
            torch._foreach_copy_(self.weights, self.copies)


def peak_memory(device: torch.device) -> int:
    """Bytes; on a GPU since the last reset."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


def needed_flops(config: VideoCLIPConfig, batch: Batch) -> int:
    """Floating-point operations of a forward pass over the real tokens only.

    A token costs two per weight that it is multiplied with, and a pair of tokens of one row 4 x D in each layer.
    """
    width, total = config.hidden_size, 0
    weights = 4 * width**2 + 2 * width * config.intermediate_size
    lengths = {config.num_video_layers: batch.video_mask.sum(1) + 2, config.num_text_layers: batch.text_mask.sum(1)}
    for layers, tokens in lengths.items():
        total += layers * int(2 * weights * tokens.sum() + 4 * width * tokens.square().sum())
    return total + 2 * int(batch.video_mask.sum()) * width * (config.feature_dim + width)


def flop_ratios(config: VideoCLIPConfig, batch: Batch) -> dict[str, float]:
    """Operations executed per operation needed: with the rows of a batch packed together, as on a GPU, and in the
    groups of similar length in which a CPU takes them. Counted, not computed, so they hold for all devices."""
    with torch.device("meta"):
        model = VideoCLIP(replace(config, attention="padded")).eval()
    towers = (
        (model.video_encoder.encode, batch.video, batch.video_mask),
        (model.text_encoder.encode, batch.text, batch.text_mask),
    )
    counts = dict.fromkeys(("packed", "grouped"), 0)
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        for encode, rows, mask in towers:
            counts["packed"] += counted(encode, rows, mask)
            for some, longest in groups(mask):
                counts["grouped"] += counted(encode, rows[some, :longest], mask[some, :longest])
    needed = needed_flops(config, batch)
    return {f"{name}_flop_ratio": count / needed for name, count in counts.items()}


def counted(encode: Callable[..., Tensor], rows: Tensor, mask: Tensor) -> int:
    """The operations of encoding these rows together."""
    with FlopCounterMode(display=False) as counter:
        encode(*(tensor.to("meta") for tensor in (rows, mask, places_of(mask))))
    return int(counter.get_total_flops())


def one_step(
    model: VideoCLIP, forward: Forward, criterion: NCE, updates: Updates, batch: Batch
) -> tuple[float, float, float]:
    marks = [now()]
    loss = criterion(*forward(model, batch))
    marks.append(now())
    loss.backward()
    marks.append(now())
    updates.step()
    marks.append(now())
    forward_s, backward_s, optimizer_s = np.diff(marks).tolist()
    return forward_s, backward_s, optimizer_s


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


def device_name() -> str:
    if torch.cuda.is_available():
        return torch.cuda.get_device_name()
    return f"CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    main()
