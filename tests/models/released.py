"""The recordings of OpenAI's CLIP, CLIP4Clip and CLIP2Video, and their checkpoints by seed; see golden/clip_family."""

import json
from pathlib import Path
from zlib import crc32

import numpy as np
import torch

GOLDEN = Path(__file__).parents[1] / "golden" / "clip_family"
ABOUT = {name: json.loads((GOLDEN / name / "meta.json").read_text()) for name in ("clip2video", "clip4clip", "full")}
ABOUT["openai_clip"] = json.loads((GOLDEN / "openai_clip" / "meta.json").read_text())
LAYOUTS = json.loads((GOLDEN / "checkpoint_layouts.json").read_text())
SCALE = float(np.float32(4.6052))  # logit_scale of all recordings
HALF = ("conv1.weight", "in_proj_weight", "in_proj_bias", "out_proj.weight", "out_proj.bias")
HALF += ("c_fc.weight", "c_fc.bias", "c_proj.weight", "c_proj.bias", "visual.proj", "text_projection")


def cases(name):
    return torch.load(GOLDEN / name / "cases.pt", weights_only=True)


def weight(name, shape, *, base_seed=20210618):
    """The weight of this name, without `clip.`, by the rule of the recordings."""
    if name == "logit_scale":
        return torch.tensor(SCALE)
    drawn = np.random.RandomState((crc32(name.encode()) ^ base_seed) & 0xFFFFFFFF).standard_normal(shape)
    if name in ("weight_center", "emb_center"):
        drawn /= 8
    elif "embedding" in name:
        drawn *= 0.3
    elif name.endswith("bias"):
        drawn *= 0.1
    elif drawn.ndim == 1:
        drawn = 1 + 0.2 * drawn
    else:
        count = shape[0] if name in ("visual.proj", "text_projection") else np.prod(shape[1:])
        drawn /= np.sqrt(count)
    return torch.from_numpy(drawn.astype(np.float32))


def clip_weights(shapes, *, prefix=""):
    """CLIP's weights, with the values that float16 has where OpenAI's files are float16."""
    return {
        f"{prefix}{name}": weight(name, shape).half() if name.endswith(HALF) else weight(name, shape)
        for name, shape in shapes.items()
    }


def head_weights(shapes, *, position_scale=1.0):
    """The weights that CLIP4Clip and CLIP2Video add."""
    return {
        name: weight(name, shape) * (position_scale if "position_embeddings" in name else 1)
        for name, shape in shapes.items()
    }


def write(folder, weights, name="pytorch_model.bin.2"):
    torch.save(weights, folder / name)
    return folder / name


def small(about, heads, **options):
    """A small checkpoint of CLIP4Clip or CLIP2Video."""
    return clip_weights(about["clip_shapes"], prefix="clip.") | head_weights(heads, **options)


def full_size(layout):
    """A checkpoint of a layout at full size."""
    shapes = {key: shape for key, (_, shape) in LAYOUTS["openai_clip"].items() if shape or key == "logit_scale"}
    if layout == "openai_clip":
        return clip_weights(shapes)
    heads = {key: about[1] for key, about in LAYOUTS[layout].items() if key != "clip.*"}
    return clip_weights(shapes, prefix="clip.") | head_weights(heads)


def frames(case, size):
    """uint8 frames, zeros where there is none, and the mask."""
    made, length = case.get("frames_made", case["length"]), case["length"]
    valid = case.get("valid_frames") or [length] * len(case["input_ids"])
    drawn = np.random.RandomState(case["frames_seed"]).randint(0, 256, (len(valid), made, size, size, 3))
    video = np.zeros((len(valid), length, size, size, 3), np.uint8)
    for clip, count in enumerate(valid):
        video[clip, :count] = drawn[clip, :1] if case.get("same_frames") else drawn[clip, :count]
    mask = np.arange(length) < np.array(valid)[:, None]
    return torch.from_numpy(video), torch.from_numpy(mask)


def text(case):
    return case["input_ids"], case["input_mask"].bool()
