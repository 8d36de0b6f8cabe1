"""Checkpoints of OpenAI's CLIP, CLIP4Clip and CLIP2Video, recognized by their keys, as models of this project.

CLIP4Clip (Luo et al., 2021) and CLIP2Video (Fang et al., 2021) write plain state dicts, `pytorch_model.bin.N`.
"""

from collections.abc import Collection, Mapping
from typing import Any

import torch
from torch import Tensor

from mmpt_plugin.features.clip import PIXELS
from mmpt_plugin.features.openai_clip import (
    SCALARS,
    TRANSPOSED,
    block_names,
    check_vit,
    clip_names,
    clip_sizes,
    is_openai_clip,
    num_layers,
    renamed,
)

PREFIX = "clip."  # of CLIP's own weights, in the checkpoints of CLIP4Clip and CLIP2Video
NUM_FRAMES = 12
MAX_WORDS = 30  # of 32 places
LSTM = ("weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0")
UNUSED = ""
POSITIONS = ("position.weight", "difference.position.weight")


def is_released(weights: Collection[str]) -> bool:
    """Whether the keys are those of OpenAI's CLIP, or of a model that CLIP4Clip or CLIP2Video wrote."""
    return is_openai_clip([key.removeprefix(prefix_of(weights)) for key in weights])


def from_released(
    weights: Mapping[str, Tensor], *, where: str, max_video_len: int | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The model's configuration and weights, in float32.

    Their tables of positions have a row for each place of the text tower; the first `max_video_len` (12) are read.
    ValueError for a model that is not supported, and for missing or unexpected keys, with their names.
    """
    weights = {key: value for key, value in weights.items() if key not in SCALARS}
    check_header(weights, where=where)
    prefix = prefix_of(weights)
    clip = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    check_vit(clip, where=where)
    found = renamed(weights, new_names(weights), transposed=(*TRANSPOSED, "weight_center"), where=where)
    found.pop(UNUSED, None)
    sizes = clip_sizes(clip, where=where)
    length = max_video_len or NUM_FRAMES
    found |= {key: found[key][:length] for key in POSITIONS if key in found and found[key].ndim}
    mean, std = PIXELS["clip"]
    found |= {"backbone.pixel_mean": torch.tensor(list(mean)), "backbone.pixel_std": torch.tensor(list(std))}
    places = sizes["text_config"]["max_position_embeddings"] - 2
    words = min(MAX_WORDS, places) if prefix else places
    return header(weights)[0] | {"backbone": sizes, "max_video_len": length, "max_text_len": words}, found


def prefix_of(weights: Collection[str]) -> str:
    """The prefix of CLIP's own weights: none in OpenAI's files."""
    return "" if is_openai_clip(weights) else PREFIX


def new_names(weights: Mapping[str, Tensor]) -> dict[str, str]:
    """For each key, the name of the weight in the model; "" for one that the model does not use."""
    prefix = prefix_of(weights)
    own = clip_names([key.removeprefix(prefix) for key in weights if key.startswith(prefix)])
    return header(weights)[1] | {f"{prefix}{old}": f"backbone.clip.{new}" for old, new in own.items()}


def check_header(weights: Collection[str], *, where: str) -> None:
    """ValueError for the two options of CLIP4Clip that are not supported."""
    if any(key.startswith(("cross.", "similarity_dense.")) for key in weights):
        raise ValueError(
            f"{where} is a CLIP4Clip model with tightTransf, which scores a text and a video together and has no "
            "vector of a video alone. Supported: meanP, seqLSTM, seqTransf"
        )
    if f"{PREFIX}visual.conv2.weight" in weights:
        raise ValueError(f"{where} is a CLIP4Clip model with 3d patches. Supported: --linear_patch 2d")


def header(weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, str]]:
    """The configuration that follows from the weights that are not CLIP's, and the new name of each of them."""
    layers = {"num_temporal_layers": num_layers(weights, "transformerClip.")}
    if "weight_center" in weights:
        centers = len(weights["weight_center"])
        # The lists of VATEX, on which the authors use 7 centers, are not thinned; see `FramesConfig`.
        frames = {"sampling": "clip2video", "feature_framerate": 1 if centers == 7 else 2}
        return {"_name": "clip2video", "num_centers": centers, **layers, **frames}, {
            "frame_position_embeddings.weight": "difference.position.weight",
            "type_position_embeddings.weight": "difference.kind.weight",
            "trans_layernorm.weight": "difference.norm.weight",
            "trans_layernorm.bias": "difference.norm.bias",
            "weight_center": "alignment.assign",
            "emb_center": "alignment.centers",
            **block_names(weights, "frame2t_attention.", "difference.differ."),
            **block_names(weights, "transformerClip.", "difference.temporal."),
            **block_names(weights, "actionClip.", "skipping."),
        }
    if any(key.startswith("transformerClip.") for key in weights):
        return {"_name": "clip_transformer", **layers, "sampling": "clip4clip"}, {
            "frame_position_embeddings.weight": "position.weight",
            **block_names(weights, "transformerClip.", "temporal."),
        }
    if any(key.startswith("lstm_visual.") for key in weights):
        names = {f"lstm_visual.{part}": f"lstm.{part}" for part in LSTM}
        return {"_name": "clip_lstm", "sampling": "clip4clip"}, {**names, "frame_position_embeddings.weight": UNUSED}
    return {"_name": "clip_mean", **({} if is_openai_clip(weights) else {"sampling": "clip4clip"})}, {}
