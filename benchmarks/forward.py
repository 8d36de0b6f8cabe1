"""Forward pass of the full-size model, compared with transformers' eager attention with the same weights.

    python -m benchmarks.forward --json

BERT-base with 6 video and 12 text layers; clips and texts have the lengths of pre-training. The eager model pads every
row to the longest of the batch, as the original does. On a GPU, also in half precision and compiled.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable, Iterator
from functools import partial

import torch

from benchmarks.step import device_name
from benchmarks.towers import SIZES, Embeddings, made_batch, make_eager, padded
from mmpt_plugin.batch import Batch
from mmpt_plugin.hardware import compute_device
from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest one is reported (default 3)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    results = {}
    for name, line in measure("full", arguments.pairs, arguments.repeats):
        results[name] = line
        print(
            f"{name:24} {line['seconds']:7.2f} s  {line['pairs_per_s']:8.1f} pairs/s  "
            f"{line['speedup']:.2f} x eager float32, differs by {line['largest_difference']:.1e}",
            flush=True,
        )
    if arguments.json:
        print(json.dumps({"pairs": arguments.pairs, "device": device_name(), "variants": results}))


def measure(size: str, pairs: int, repeats: int, *, compile: bool = True) -> Iterator[tuple[str, dict[str, float]]]:
    """Each variant and its figures; the first, eager float32, is what the others are compared with."""
    device = compute_device()
    torch.manual_seed(0)
    model = VideoCLIP(VideoCLIPConfig(**SIZES[size])).eval().to(device)
    batch = made_batch(pairs, model.config).packed().to(device)
    expected, slowest = None, 0.0
    for name, run in variants(model, batch, device, compile=compile).items():
        seconds, embeddings = fastest(run, repeats, device)
        if expected is None:
            expected, slowest = embeddings, seconds
        worst = max(float((a.float() - b.float()).abs().max()) for a, b in zip(embeddings, expected, strict=True))
        yield name, {
            "seconds": seconds, "pairs_per_s": pairs / seconds, "largest_difference": worst,
            "speedup": slowest / seconds,
        }  # fmt: skip


def variants(
    model: VideoCLIP, batch: Batch, device: torch.device, *, compile: bool
) -> dict[str, Callable[[], Embeddings]]:
    """The forward passes, the compiled ones last, because to compile may take minutes."""
    reference = make_eager(copy.deepcopy(model))
    made: dict[str, Callable[[], Embeddings]] = {
        "eager float32": partial(padded, reference, batch),
        "ours float32": partial(model, batch),
    }
    compiled: dict[str, Callable[[], Embeddings]] = {}
    for dtype in (torch.float16, torch.bfloat16) if device.type == "cuda" else (torch.bfloat16,):
        name = str(dtype).removeprefix("torch.")
        eager, ours = copy.deepcopy(reference).to(dtype), copy.deepcopy(model).to(dtype)
        made[f"eager {name}"] = partial(padded, eager, batch)
        made[f"ours {name}"] = partial(ours, batch)
        if compile and device.type == "cuda":
            compiled[f"ours {name} compiled"] = partial(torch.compile(ours, dynamic=True), batch)
    return made | compiled


@torch.inference_mode()
def fastest(run: Callable[[], Embeddings], repeats: int, device: torch.device) -> tuple[float, Embeddings]:
    seconds, embeddings = [], run()
    for _ in range(repeats):
        start = time.perf_counter()
        embeddings = run()
        if device.type == "cuda":
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - start)
    return min(seconds), embeddings


if __name__ == "__main__":
    main()
