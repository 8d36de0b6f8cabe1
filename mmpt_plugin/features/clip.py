"""CLIP's image encoder (Radford et al., ICML 2021), frozen, frame by frame: features for models that build on it."""

import hashlib
import json
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from transformers import CLIPModel
from transformers.utils.constants import OPENAI_CLIP_MEAN, OPENAI_CLIP_STD

from mmpt_plugin.checkpoint import first_line
from mmpt_plugin.registry import register_encoder


@dataclass(kw_only=True)
class CLIPEncoderConfig:
    weights: str
    """A folder of transformers' CLIP, or its hub name, openai/clip-vit-base-patch32."""
    fps: int = 1
    """Frames a second; a row is the mean over its second's frames."""

    def __post_init__(self) -> None:
        if self.fps < 1:
            raise ValueError(f"encoder.fps must be at least 1, got {self.fps}")


@register_encoder("clip", dataclass=CLIPEncoderConfig)
class CLIPEncoder:
    """A second of frames -> the mean of their projected image embeddings, as `CLIPModel.get_image_features` has them,
    not normalised."""

    def __init__(self, config: CLIPEncoderConfig) -> None:
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.dtype = torch.float16 if self.device.type == "cuda" else torch.float32
        clip = load_clip(config.weights)
        self.fps, self.size = config.fps, int(clip.config.vision_config.image_size)
        self.feature_dim = int(clip.config.projection_dim)
        self.model = nn.ModuleList([clip.vision_model, clip.visual_projection])
        pixels = {"mean": OPENAI_CLIP_MEAN, "std": OPENAI_CLIP_STD}
        about = {"encoder": "clip", "fps": config.fps, **pixels, "weights": weights_digest(self.model)}
        self.fingerprint = json.dumps(about)
        self.model.to(self.device, self.dtype)

    @torch.inference_mode()
    def __call__(self, frames: UInt8[Tensor, "S F H W 3"]) -> Float[Tensor, "S D"]:
        pictures = frames.to(self.device).flatten(0, 1).permute(0, 3, 1, 2).float().div_(255)
        colours = (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD)
        mean, std = (torch.tensor(values, device=self.device).view(3, 1, 1) for values in colours)
        tower, projection = self.model
        embeddings: Tensor = projection(tower(pixel_values=((pictures - mean) / std).to(self.dtype)).pooler_output)
        return embeddings.float().view(*frames.shape[:2], -1).mean(dim=1)


def load_clip(weights: str) -> Any:
    """All of its weights, or a ValueError."""
    try:
        loaded: Any = CLIPModel.from_pretrained(weights, output_loading_info=True)
    except Exception as error:  # of the hub's, the network's and safetensors' many kinds
        raise ValueError(
            f"no CLIP at '{weights}', neither as a folder nor as a hub name: {first_line(error)}"
        ) from error
    model, found = loaded
    lacking = sorted(found["missing_keys"])
    if lacking:
        raise ValueError(f"'{weights}' is no CLIP: it lacks {', '.join(lacking[:5])}")
    return model.eval()


def weights_digest(model: nn.Module) -> str:
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()
