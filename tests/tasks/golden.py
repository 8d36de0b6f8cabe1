"""The original's end tasks as recorded: its annotation files, features, outputs and metrics, with tiny weights."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin import VideoCLIP, registry

GOLDEN = Path(__file__).parents[1] / "golden"
ENDTASK = GOLDEN / "endtask"
ARRAYS = np.load(ENDTASK / "expected.npz")
METRICS = json.loads((ENDTASK / "expected.json").read_text())


def released() -> VideoCLIP:
    return VideoCLIP.from_pretrained(GOLDEN / "videoclip_released_layout.pt", num_attention_heads=2, max_video_len=32)


def mixed() -> VideoCLIP:
    """The same with a scaled text LayerNorm, so that COIN's scores fall on both sides of the threshold."""
    model = released()
    weights = torch.load(ENDTASK / "coin_mixed_layer_norm.pt", weights_only=True)
    model.load_state_dict(model.state_dict() | weights)
    return model


def task(name, corpus, annotations, **dataset):
    """`corpus` is a registered data set, `annotations` its file below the recordings."""
    folder = ENDTASK / Path(annotations).parts[0]
    section = {
        "_name": corpus,
        "annotations": str(ENDTASK / annotations),
        "features": str(folder / "features"),
        "tokenizer": str(ENDTASK / "tokenizer"),
    }
    options = dataset.pop("options", {})
    return registry.tasks.build({"_name": name, "dataset": section | dataset, **options})


def close(ours, recorded):
    np.testing.assert_allclose(ours, recorded, atol=1e-5 * max(1.0, float(np.abs(recorded).max())), rtol=0)


approx = pytest.approx
