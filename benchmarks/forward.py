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
    parser.add_argument("--repeats", type=int, default=3, help="rounds, of which the fastest counts (default 3)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    results = {}
    for name, line in measure("full", arguments.pairs, arguments.repeats):
        results[name] = line
        print(
            f"{name:24} {line['seconds']:7.2f} s  {line['pairs_per_s']:8.1f} pairs/s  "
            f"{line['speedup']:.2f} x eager of this type, eager float32 differs by {line['largest_difference']:.1e}",
            flush=True,
        )
    if arguments.json:
        print(json.dumps({"pairs": arguments.pairs, "device": device_name(), "variants": results}))


def measure(size: str, pairs: int, repeats: int, *, compile: bool = True) -> Iterator[tuple[str, dict[str, float]]]:
    """Each variant and its figures. Variants of one data type are timed in turn, because a machine's speed varies."""
    device = compute_device()
    torch.manual_seed(0)
    model = VideoCLIP(VideoCLIPConfig(**SIZES[size])).eval().to(device)
    batch = made_batch(pairs, model.config).packed().to(device)
    expected: Embeddings | None = None
    on_gpu = device.type == "cuda"
    for dtype in (torch.float32, torch.float16, torch.bfloat16) if on_gpu else (torch.float32, torch.bfloat16):
        name = str(dtype).removeprefix("torch.")
        runs = variants(copy.deepcopy(model).to(dtype), batch, compile=compile and on_gpu and dtype != torch.float32)
        embeddings = {kind: evaluate(run, device)[1] for kind, run in runs.items()}
        rounds = [{kind: evaluate(run, device)[0] for kind, run in runs.items()} for _ in range(repeats)]
        expected = embeddings["eager"] if expected is None else expected
        for kind, found in embeddings.items():
            seconds = min(one[kind] for one in rounds)
            yield (
                f"{kind} {name}",
                {
                    "seconds": seconds,
                    "pairs_per_s": pairs / seconds,
                    "speedup": min(one["eager"] for one in rounds) / seconds,
                    "largest_difference": max(
                        float((a.float() - b.float()).abs().max()) for a, b in zip(found, expected, strict=True)
                    ),
                },
            )


def variants(model: VideoCLIP, batch: Batch, *, compile: bool) -> dict[str, Callable[[], Embeddings]]:
    """The forward passes of one data type; to compile may take minutes."""
    made: dict[str, Callable[[], Embeddings]] = {
        "eager": partial(padded, make_eager(copy.deepcopy(model)), batch),
        "ours": partial(model, batch),
    }
    if compile:
        towers = copy.deepcopy(model)
        towers.video_encoder.compiled = towers.text_encoder.compiled = True
        made["compiled"] = partial(towers, batch)
    return made


@torch.inference_mode()
def evaluate(run: Callable[[], Embeddings], device: torch.device) -> tuple[float, Embeddings]:
    """The seconds that a forward pass takes, and its result."""
    start = time.perf_counter()
    embeddings = run()
    if device.type == "cuda":
        torch.cuda.synchronize()
    return time.perf_counter() - start, embeddings


if __name__ == "__main__":
    main()
