"""How often a search finds the right moment of the demo's held-out videos, with windows of several lengths.

    python -m benchmarks.moments --json

Needs the data and the run of `make demo`. For each description, the moments are ranked among the windows of all
held-out videos, and overlapping ones are dropped, as in a collection. A moment is right if the action and the
ingredient of the description are shown at its middle. `whole videos` ranks videos by one vector each, the mean of their
windows; it is right if the action and the ingredient are shown at the middle of the video.
"""

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float

from mmpt_plugin import load_model
from mmpt_plugin.features.files import FeatureFolder
from mmpt_plugin.models import Embedder
from mmpt_plugin.search.moments import without_overlaps
from mmpt_plugin.search.stores.store import Hit, Windows
from mmpt_plugin.search.windows import feature_windows

DATA, CHECKPOINT = Path("data/toy_kitchen"), Path("runs/demo/checkpoint_last.pt")
CUTS = ((6, 2), (8, 8), (8, 4), (8, 2), (4, 2), (4, 1))  # window and hop in seconds; the demo's model reads up to 8 s
K = 5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--checkpoint", type=Path, default=CHECKPOINT)
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    model = load_model(arguments.checkpoint, tokenizer=str(DATA / "tokenizer"))
    clips = [json.loads(line) for line in (DATA / "test_clips.jsonl").read_text().splitlines()]
    names = sorted({clip["video_id"] for clip in clips})
    features = {name: FeatureFolder(DATA / "features").read(name) for name in names}
    result: dict[str, Any] = {}
    for window, hop in CUTS:
        result[f"{window}/{hop}"] = rates(model, cut(model, features, window, hop), clips)
    result["whole videos"] = rates(model, whole(model, features), clips)
    torch.manual_seed(0)
    untrained = type(model)(model.config).eval()
    untrained.tokenizer = model.tokenizer
    result["untrained, 6/2"] = rates(untrained, cut(untrained, features, 6, 2), clips)
    for name, own in result.items():
        print(f"{name:>16}: hit@1 {own['hit@1']:.3f}, hit@5 {own['hit@5']:.3f}, chance {own['chance']:.4f}")
    if arguments.json:
        print(json.dumps(result))


def cut(model: Embedder, features: dict[str, Float[np.ndarray, "T F"]], window: int, hop: int) -> dict[str, Windows]:
    return {name: feature_windows(model, rows, window=window, hop=hop) for name, rows in features.items()}


def whole(model: Embedder, features: dict[str, Float[np.ndarray, "T F"]]) -> dict[str, Windows]:
    vectors = model.embed_features(features.values()).numpy()
    return {
        name: Windows(np.zeros(1), np.array([float(len(rows))]), vector[None])
        for (name, rows), vector in zip(features.items(), vectors, strict=True)
    }


def rates(model: Embedder, windows: dict[str, Windows], clips: Sequence[dict[str, Any]]) -> dict[str, float]:
    """The part of the descriptions with a right moment first, or among the first five."""
    shown = {name: [clip for clip in clips if clip["video_id"] == name] for name in windows}
    spans = [
        (name, start, end)
        for name, own in windows.items()
        for start, end in zip(own.starts.tolist(), own.ends.tolist(), strict=True)
    ]
    vectors = np.concatenate([own.vectors for own in windows.values()])
    meanings = [meaning_at(shown[name], (start + end) / 2) for name, start, end in spans]
    scores = model.embed_text([clip["caption"] for clip in clips]).numpy() @ vectors.T
    first, among, chance = [], [], []
    for clip, row in zip(clips, scores, strict=True):
        hits = (Hit(spans[i][0], "", spans[i][1], spans[i][2], float(row[i])) for i in np.argsort(-row, kind="stable"))
        best = without_overlaps(hits, K)
        right = [meaning_at(shown[hit.video], (hit.start + hit.end) / 2) == clip["meaning"] for hit in best]
        first.append(right[0])
        among.append(any(right))
        chance.append(np.mean([meaning == clip["meaning"] for meaning in meanings]))
    return {
        "hit@1": float(np.mean(first)), "hit@5": float(np.mean(among)), "chance": float(np.mean(chance)),
        "windows": len(spans),
    }  # fmt: skip


def meaning_at(clips: Sequence[dict[str, Any]], second: float) -> dict[str, str] | None:
    """The action and the ingredient that a video shows at a second."""
    return next((clip["meaning"] for clip in clips if clip["start"] <= second <= clip["end"]), None)


if __name__ == "__main__":
    main()
