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
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mmpt_plugin.batch import Batch, length_mask, places_of
from mmpt_plugin.criterions import NCE, NCEConfig
from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.models.encoders import CPU_ROWS

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 128, "num_video_layers": 2,
        "num_text_layers": 2, "vocab_size": 1000,
    },
    "small": {
        "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "num_video_layers": 3,
        "num_text_layers": 4,
    },
    "full": {},
}  # fmt: skip


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
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = VideoCLIP(VideoCLIPConfig(**SIZES[size])).to(device).train()
    criterion = NCE(NCEConfig())
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-5)
    pairs = 32 if size == "full" and device.type == "cpu" else 512
    batch = made_batch(pairs, model.config).packed().to(device)
    steps = 1 if size == "full" and device.type == "cpu" else 4
    times = [one_step(model, criterion, optimizer, batch) for _ in range(steps + 1)][1 if steps > 1 else 0 :]
    forward, backward, update = (statistics.median(part) for part in zip(*times, strict=True))
    if device.type == "cuda":
        peak = torch.cuda.max_memory_allocated()
    else:
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    seconds = forward + backward + update
    return {
        "pairs": pairs, "seconds": seconds, "forward_s": forward, "backward_s": backward, "optimizer_s": update,
        "pairs_per_s": pairs / seconds, "peak_memory_bytes": peak,
        **flop_ratios(model.config, made_batch(512, model.config)),
    }  # fmt: skip


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
            for some in torch.split(mask.sum(1).argsort(), CPU_ROWS):
                seen = mask[some, : int(mask[some].sum(1).max())]
                counts["grouped"] += counted(encode, rows[some, : seen.shape[1]], seen)
    needed = needed_flops(config, batch)
    return {f"{name}_flop_ratio": count / needed for name, count in counts.items()}


def counted(encode: Callable[..., Tensor], rows: Tensor, mask: Tensor) -> int:
    """The operations of encoding these rows together."""
    with FlopCounterMode(display=False) as counter:
        encode(*(tensor.to("meta") for tensor in (rows, mask, places_of(mask))))
    return int(counter.get_total_flops())


def one_step(
    model: VideoCLIP, criterion: NCE, optimizer: torch.optim.Optimizer, batch: Batch
) -> tuple[float, float, float]:
    marks = [now()]
    loss = criterion(*model(batch))
    marks.append(now())
    loss.backward()
    marks.append(now())
    optimizer.step()
    optimizer.zero_grad()
    marks.append(now())
    forward, backward, update = np.diff(marks).tolist()
    return forward, backward, update


def made_batch(pairs: int, config: VideoCLIPConfig) -> Batch:
    """Clips of 3 to 32 s and texts of 8 to 61 tokens, uniformly distributed; float16 features, as in shards."""
    rng = np.random.default_rng(0)
    video_mask = length_mask(rng.integers(3, 33, pairs), 32)
    text_mask = length_mask(rng.integers(8, 62, pairs) + 2, 63)
    features = torch.from_numpy(rng.standard_normal((pairs, 32, config.feature_dim)).astype(np.float16))
    ids = torch.from_numpy(rng.integers(5, config.vocab_size, (pairs, 63)))
    return Batch(
        video=features * video_mask[:, :, None],
        video_mask=video_mask,
        text=ids * text_mask,
        text_mask=text_mask,
        video_ids=torch.arange(pairs),
    )


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
