"""transformers' CLIP or SigLIP as a backbone: frames and texts -> vectors of one width.

B clips or texts, T frames, N frames of all clips, S tokens, H rows and W columns of pixels, L text tokens, D width.
"""

import json
from collections.abc import Mapping, Sequence
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from transformers import AutoConfig, AutoModel, CLIPConfig, PreTrainedConfig, PreTrainedModel, SiglipConfig
from transformers.image_processing_base import ImageProcessingMixin
from transformers.utils.constants import (
    IMAGENET_STANDARD_MEAN,
    IMAGENET_STANDARD_STD,
    OPENAI_CLIP_MEAN,
    OPENAI_CLIP_STD,
)

from mmpt_plugin.checkpoint import first_line
from mmpt_plugin.registry import unknown

KINDS: dict[str, type[PreTrainedConfig]] = {"clip": CLIPConfig, "siglip": SiglipConfig}
# The mean and standard deviation of red, green and blue that each was trained with.
PIXELS = {
    "clip": (OPENAI_CLIP_MEAN, OPENAI_CLIP_STD),
    "siglip": (IMAGENET_STANDARD_MEAN, IMAGENET_STANDARD_STD),
}


class Backbone(nn.Module):
    """transformers' CLIP or SigLIP, and the normalisation of pixels it was trained with."""

    def __init__(
        self,
        config: Any,
        model: PreTrainedModel | None = None,
        pixels: tuple[Sequence[float], Sequence[float]] | None = None,
    ) -> None:
        super().__init__()
        if model is None:
            model = AutoModel.from_config(config, attn_implementation="sdpa")  # type: ignore[no-untyped-call]
        self.clip: Any = model
        # The temperature is the criterion's; no part of the two towers learns from these.
        for name in ("logit_scale", "logit_bias"):
            if hasattr(self.clip, name):
                getattr(self.clip, name).requires_grad_(False)
        mean, std = pixels or PIXELS[config.model_type]
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(list(mean)))
        self.register_buffer("pixel_std", torch.tensor(list(std)))

    @property
    def is_siglip(self) -> bool:
        return bool(self.clip.config.model_type == "siglip")

    def vision_weights(self) -> nn.ModuleList:
        """The vision tower with its projection."""
        return nn.ModuleList([self.clip.vision_model, *([] if self.is_siglip else [self.clip.visual_projection])])

    def frames(
        self, video: Float[Tensor, "B T D"] | UInt8[Tensor, "B T H W 3"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """A vector a frame, not normalised, zeros where the mask is False; frozen features are such vectors already."""
        width, dtype = self.width, self.clip.logit_scale.dtype
        if video.dtype != torch.uint8:
            if video.shape[-1] != width:
                raise ValueError(f"the clips' features have width {video.shape[-1]}, the model takes {width}")
            return video.to(dtype).masked_fill(~mask[..., None], 0)
        size = self.clip.config.vision_config.image_size
        if video.shape[2:4] != (size, size):
            raise ValueError(f"frames of {tuple(video.shape[2:4])} pixels, the model takes {(size, size)}")
        made = torch.zeros(*mask.shape, width, dtype=dtype, device=video.device)
        if not mask.any():
            return made
        vectors = self.images(video[mask])
        return made.to(vectors.dtype).index_put((mask,), vectors)

    def images(self, pixels: UInt8[Tensor, "N H W 3"]) -> Float[Tensor, "N D"]:
        dtype = self.clip.logit_scale.dtype
        values = ((pixels.to(self.pixel_mean.dtype) / 255 - self.pixel_mean) / self.pixel_std).to(dtype)
        pooled: Tensor = self.clip.vision_model(pixel_values=values.permute(0, 3, 1, 2)).pooler_output
        return pooled if self.is_siglip else self.clip.visual_projection(pooled)

    def text(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B L D"]]:
        """A vector a text, which is that of its last token, and one a token; none is normalised.

        SigLIP reads every text padded to its full length, the padding too, and takes the last place's vector.
        """
        length = ids.shape[1]
        if self.is_siglip:
            config = self.clip.config.text_config
            ids = ids.masked_fill(~mask, config.pad_token_id)
            ids = nn.functional.pad(ids, (0, config.max_position_embeddings - length), value=config.pad_token_id)
        states = self.clip.text_model(input_ids=ids).last_hidden_state
        tokens: Tensor = self.clip.text_model.head(states) if self.is_siglip else self.clip.text_projection(states)
        if self.is_siglip:
            return tokens[:, -1], tokens[:, :length]
        last = last_place(mask)
        return tokens[torch.arange(len(ids), device=ids.device), last], tokens

    @property
    def width(self) -> int:
        return vector_width(self.clip.config)

    def text_encoder(self, num_layers: int) -> nn.Module:
        """A new transformer like the text tower's, starting from copies of its first layers."""
        tower = self.clip.text_model
        config = deepcopy(tower.config)
        if config.hidden_size != self.width:
            raise ValueError(
                f"this model's layers across frames start from the text tower's, whose width {config.hidden_size} "
                f"is not that of the frames' vectors, {self.width}"
            )
        if num_layers > config.num_hidden_layers:
            raise ValueError(f"{num_layers} layers start from a text tower that has {config.num_hidden_layers}")
        config.num_hidden_layers = num_layers
        encoder: nn.Module = type(tower.encoder)(config)
        own = encoder.state_dict()
        encoder.load_state_dict({key: value for key, value in tower.encoder.state_dict().items() if key in own})
        return encoder

    def text_positions(self, size: int) -> nn.Embedding:
        """An embedding that starts from the first rows of the text tower's positions."""
        table: Tensor = self.clip.text_model.embeddings.position_embedding.weight
        if size > len(table):
            raise ValueError(f"{size} places start from a text tower that has {len(table)}: see model.max_video_len")
        positions = nn.Embedding(size, table.shape[1])
        positions.load_state_dict({"weight": table[:size]})
        return positions


def last_place(mask: Bool[Tensor, "B L"]) -> Int[Tensor, " B"]:
    """Where the last real token stands."""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).amax(dim=1)


def vector_width(config: Any) -> int:
    """Of what both towers end in."""
    return int(config.vision_config.hidden_size if config.model_type == "siglip" else config.projection_dim)


def backbone_config(values: Mapping[str, Any]) -> Any:
    """transformers' configuration of these sizes; ValueError for a key that it does not have."""
    kind = values.get("model_type", "clip")
    if kind not in KINDS:
        raise ValueError(unknown("model.backbone.model_type", str(kind), list(KINDS)))
    default = KINDS[kind]()
    check_keys("model.backbone", values, default.to_dict())
    for part in ("text_config", "vision_config"):
        check_keys(f"model.backbone.{part}", values.get(part) or {}, getattr(default, part).to_dict())
    try:
        return KINDS[kind](**{key: deepcopy(value) for key, value in values.items() if key != "model_type"})
    except Exception as error:  # of huggingface_hub's own kinds
        raise ValueError(f"model.backbone: {str(error).splitlines()[-1].strip()}") from error


def check_keys(where: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    for key in values:
        if key not in known:
            raise ValueError(unknown("key", f"{where}.{key}", sorted(known), guess=key))


def plain_config(config: PreTrainedConfig) -> dict[str, Any]:
    """A configuration's sizes as plain values, as `backbone_config` takes them."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    known = {"": backbone_config({"model_type": config.model_type})}
    known |= {part: getattr(known[""], part) for part in ("text_config", "vision_config")}
    left_out = {"transformers_version", "architectures", "dtype", "_name_or_path"}

    def some(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
        of_part = known[part].to_dict()
        return {key: value for key, value in values.items() if key in of_part and key not in left_out}

    return {key: some(key, value) if key in known else value for key, value in some("", values).items()}


def load_clip(name: str) -> tuple[PreTrainedModel, tuple[Sequence[float], Sequence[float]] | None]:
    """A CLIP or SigLIP with all of its weights, and its mean and deviation of pixels where it says them."""
    try:
        config = AutoConfig.from_pretrained(name, trust_remote_code=False)
        if config.model_type not in KINDS:
            raise ValueError(f"model.clip: '{name}' is a {config.model_type}. Possible: {sorted(KINDS)}")
        model, report = AutoModel.from_pretrained(
            name, attn_implementation="sdpa", dtype=torch.float32, output_loading_info=True, trust_remote_code=False
        )
    except OSError as error:
        raise ValueError(f"model.clip: no CLIP at '{name}': {first_line(error)}") from error
    except RuntimeError as error:
        raise ValueError(f"model.clip: '{name}' does not fit its own config.json: {first_line(error)}") from error
    unexpected = [key for key in report["unexpected_keys"] if not key.endswith(".position_ids")]
    problems = [f"missing {key}" for key in sorted(report["missing_keys"])]
    problems += [f"unexpected {key}" for key in sorted(unexpected)]
    problems += [f"misshapen {key[0]}" for key in sorted(report["mismatched_keys"])]
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ValueError(f"model.clip: '{name}' does not fit the model: {'; '.join(problems[:10])}{more}")
    return model, pixel_statistics(name)


def pixel_statistics(name: str) -> tuple[Sequence[float], Sequence[float]] | None:
    """What the model's image processor normalises with; None where it came without one."""
    try:
        values, _ = ImageProcessingMixin.get_image_processor_dict(name)
    except OSError:
        return None
    return (values["image_mean"], values["image_std"]) if {"image_mean", "image_std"} <= values.keys() else None
