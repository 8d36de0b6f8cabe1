"""Forward pass of the full-size model, compared with transformers' eager attention with the same weights.

    python -m benchmarks.forward --json

BERT-base with 6 video and 12 text layers; clips and texts have the lengths of pre-training. The eager model pads every
row to the longest of the batch, as the original does. On a GPU, also in half precision and compiled.
"""

import argparse
import copy
import json
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from benchmarks.step import device_name, made_batch
from mmpt_plugin.batch import Batch
from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.models.encoders import masked_mean

Embeddings = tuple[Tensor, Tensor]


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--pairs", type=int, default=512)
    parser.add_argument("--repeats", type=int, default=3, help="the fastest one is reported (default 3)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    torch.manual_seed(0)
    model = VideoCLIP(VideoCLIPConfig()).eval().to(device)
    batch = made_batch(arguments.pairs, model.config).packed().to(device)
    results = {}
    for name, run in variants(model, batch, device).items():
        seconds, embeddings = fastest(run, arguments.repeats, device)
        results[name] = {"seconds": seconds, "pairs_per_s": arguments.pairs / seconds}
        if name == "eager float32":
            expected = embeddings
        worst = max(float((a.float() - b.float()).abs().max()) for a, b in zip(embeddings, expected, strict=True))
        results[name] |= {"largest_difference": worst, "speedup": results["eager float32"]["seconds"] / seconds}
        print(
            f"{name:24} {seconds:7.2f} s  {arguments.pairs / seconds:8.1f} pairs/s  "
            f"{results[name]['speedup']:.2f} x eager float32, differs by {worst:.1e}",
            flush=True,
        )
    if arguments.json:
        print(json.dumps({"pairs": arguments.pairs, "device": device_name(), "variants": results}))


def variants(model: VideoCLIP, batch: Batch, device: torch.device) -> dict[str, Callable[[], Embeddings]]:
    reference = copy.deepcopy(model)
    for tower in (reference.video_encoder.bert, reference.text_encoder):
        tower.set_attn_implementation("eager")
    made: dict[str, Callable[[], Embeddings]] = {
        "eager float32": partial(padded, reference, batch),
        "ours float32": partial(model, batch),
    }
    for dtype in (torch.float16, torch.bfloat16) if device.type == "cuda" else (torch.bfloat16,):
        name = str(dtype).removeprefix("torch.")
        eager, ours = copy.deepcopy(reference).to(dtype), copy.deepcopy(model).to(dtype)
        made[f"eager {name}"] = partial(padded, eager, batch)
        made[f"ours {name}"] = partial(ours, batch)
        if device.type == "cuda":
            compiled: Any = torch.compile(ours, dynamic=True)
            made[f"ours {name} compiled"] = partial(compiled, batch)
    return made


def padded(model: VideoCLIP, batch: Batch) -> Embeddings:
    """The embeddings with every row padded to the longest."""
    states = model.video_encoder(batch.video, batch.video_mask)
    text = model.text_encoder(input_ids=batch.text, attention_mask=batch.text_mask).last_hidden_state
    return model.video_encoder.pool(states, batch.video_mask), masked_mean(text[:, 1:], batch.text_mask[:, 1:])


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
