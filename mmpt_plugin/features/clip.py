"""CLIP and SigLIP from transformers: loading, pixel normalization, and frozen features of frames.

N frames, S seconds of F frames, H x W pixels, D width of an image vector.
"""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, CLIPConfig, PretrainedConfig, PreTrainedModel, SiglipConfig
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils.constants import (
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from mmpt_plugin.checkpoint import check_weights, load_strictly, read_torch_file
from mmpt_plugin.errors import first_line, first_ten
from mmpt_plugin.features.openai_clip import from_openai, is_openai_clip
from mmpt_plugin.hardware import compute_device
from mmpt_plugin.registry import register_encoder


class PixelStatistics(NamedTuple):
    """The RGB mean and standard deviation, for values in 0 to 1, that a model was trained with."""

    mean: Sequence[float]
    std: Sequence[float]


KINDS: dict[str, type[PretrainedConfig]] = {"clip": CLIPConfig, "siglip": SiglipConfig}
# Used if a model has no image processor.
PIXELS = {
    "clip": PixelStatistics(OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "siglip": PixelStatistics(IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD),
}


def load_clip(name: str, *, key: str) -> tuple[PreTrainedModel, PixelStatistics]:
    """Load CLIP or SigLIP in float32 and eval mode, with its pixel statistics.

    `name` is a folder, a hub name or a file of OpenAI's CLIP; `key` is the setting that error messages refer to.
    Missing or unexpected weights, or weights of the wrong shape, raise ValueError.
    """
    if Path(name).is_file():
        return load_openai_clip(Path(name), key=key), PIXELS["clip"]
    nothing_there = f"{key}: no CLIP at '{name}', neither as a folder nor as a hub name"
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
    except Exception as error:  # the hub and the network raise many types
        raise ValueError(f"{nothing_there}: {first_line(error)}") from error
    if config.model_type not in KINDS:
        raise ValueError(f"{key}: '{name}' is a {config.model_type}. Possible: {sorted(KINDS)}")
    try:
        model, report = AutoModel.from_pretrained(
            name, attn_implementation="sdpa", dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    except RuntimeError as error:
        raise ValueError(f"{key}: '{name}' does not fit its own config.json: {first_line(error)}") from error
    except Exception as error:  # safetensors raises its own types
        raise ValueError(f"{nothing_there}: {first_line(error)}") from error
    unexpected = [name for name in report["unexpected_keys"] if not name.endswith(".position_ids")]
    problems = [f"missing {name}" for name in sorted(report["missing_keys"])]
    problems += [f"unexpected {name}" for name in sorted(unexpected)]
    problems += [f"wrong shape of {of[0]}" for of in sorted(report["mismatched_keys"])]
    if problems:
        raise ValueError(f"{key}: '{name}' does not fit the model: {first_ten(problems)}")
    return model.eval(), pixel_statistics(name) or PIXELS[config.model_type]


def load_openai_clip(path: Path, *, key: str) -> PreTrainedModel:
    """Load OpenAI's CLIP from its TorchScript archive, or from a file of its state dict."""
    weights = read_torch_file(path)
    if not is_openai_clip(weights):
        raise ValueError(f"{key}: {path} is not a CLIP of OpenAI's: its weights have other names")
    check_weights(weights, where=f"{key}: {path}")
    sizes, found = from_openai(weights, where=f"{key}: {path}")
    model: Any = AutoModel.from_config(CLIPConfig(**sizes), attn_implementation="sdpa")  # type: ignore[no-untyped-call]
    load_strictly(model, found, where=f"{key}: {path}")
    loaded: PreTrainedModel = model.eval()
    return loaded


def pixel_statistics(name: str) -> PixelStatistics | None:
    """The statistics of the model's image processor; None if it has none."""
    try:
        values, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        return None
    if not values.get("do_normalize", True):
        return PixelStatistics([0.0] * 3, [1.0] * 3)
    known = {"image_mean", "image_std"} <= values.keys()
    return PixelStatistics(values["image_mean"], values["image_std"]) if known else None


def normalize_pixels(
    pixels: UInt8[Tensor, "N H W 3"], mean: Float[Tensor, " 3"], std: Float[Tensor, " 3"]
) -> Float[Tensor, "N 3 H W"]:
    """Normalize RGB pixels for the vision tower, in the precision of `mean`."""
    return ((pixels.to(mean.dtype) / 255 - mean) / std).permute(0, 3, 1, 2)


def vision_weights(clip: Any) -> nn.ModuleList:
    """The vision tower and, for CLIP, its projection; SigLIP has none."""
    return nn.ModuleList([clip.vision_model, *([clip.visual_projection] if is_clip(clip) else [])])


def image_vectors(clip: Any, pixels: Float[Tensor, "N 3 H W"]) -> Float[Tensor, "N D"]:
    """The image vectors, not normalized, as from transformers' `get_image_features`."""
    pooled: Tensor = clip.vision_model(pixel_values=pixels).pooler_output
    return clip.visual_projection(pooled) if is_clip(clip) else pooled


def is_clip(clip: Any) -> bool:
    """Whether the model is a CLIP, which has a projection; SigLIP has none."""
    return bool(clip.config.model_type == "clip")


def vector_width(config: Any) -> int:
    """Width of the output of both towers."""
    return int(config.vision_config.hidden_size if config.model_type == "siglip" else config.projection_dim)


def weights_digest(model: nn.Module) -> str:
    """SHA-256 of the names and values of all weights."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().contiguous().numpy().tobytes())
    return digest.hexdigest()


@dataclass(kw_only=True)
class CLIPEncoderConfig:
    """The image encoder of CLIP or SigLIP, for `mmpt extract`."""

    weights: str
    """CLIP or SigLIP in transformers' format: a folder or a hub name, such as openai/clip-vit-base-patch32. Also a file
    of OpenAI's CLIP, such as ViT-B-32.pt."""
    fps: int = 1
    """Frames read per second; a feature row is the mean over the frames of its second."""

    def __post_init__(self) -> None:
        if self.fps < 1:
            raise ValueError(f"encoder.fps must be at least 1, got {self.fps}")


@register_encoder("clip", dataclass=CLIPEncoderConfig)
class CLIPEncoder:
    """CLIP's frozen image encoder (Radford et al., ICML 2021): the mean of the frame vectors of each second, not
    normalized."""

    scaling = "pillow"  # as in CLIP's own preprocessing

    def __init__(self, config: CLIPEncoderConfig) -> None:
        self.device = compute_device()
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        self.clip, pixels = load_clip(config.weights, key="encoder.weights")
        self.fps, self.size = config.fps, int(self.clip.config.vision_config.image_size)
        self.feature_dim = vector_width(self.clip.config)
        self.mean, self.std = (torch.tensor(list(values), device=self.device) for values in pixels)
        about = {"encoder": "clip", "fps": config.fps, "scaling": self.scaling, **pixels._asdict()}
        self.fingerprint = json.dumps(about | {"weights": weights_digest(vision_weights(self.clip))})
        vision_weights(self.clip).to(self.device, self.dtype)

    @torch.inference_mode()
    def __call__(self, frames: UInt8[Tensor, "S F H W 3"]) -> Float[Tensor, "S D"]:
        pixels = normalize_pixels(frames.to(self.device).flatten(0, 1), self.mean, self.std)
        return image_vectors(self.clip, pixels.to(self.dtype)).float().view(*frames.shape[:2], -1).mean(dim=1)
