"""transformers' CLIP or SigLIP as a backbone: frames and texts -> vectors of the same width.

B clips or texts, T frames, N frames of all clips, S tokens, H rows and W columns of pixels, L text tokens, D width.
"""

import json
from collections.abc import Mapping
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from transformers import AutoModel, PretrainedConfig, PreTrainedModel

from mmpt_plugin.errors import unknown_name
from mmpt_plugin.features.clip import (
    KINDS,
    PIXELS,
    PixelStatistics,
    image_vectors,
    is_clip,
    normalize_pixels,
    vector_width,
    vision_weights,
)
from mmpt_plugin.models.packed import Packing, encode_packed_causally
from mmpt_plugin.tokenizer import last_token


class Backbone(nn.Module):
    """transformers' CLIP or SigLIP, with the pixel normalization that it was trained with."""

    def __init__(
        self,
        config: Any,
        model: PreTrainedModel | None = None,
        pixels: PixelStatistics | None = None,
        *,
        attention: str = "auto",
    ) -> None:
        super().__init__()
        self.attention = attention
        if model is None:
            try:
                model = AutoModel.from_config(config, attn_implementation="sdpa")  # type: ignore[no-untyped-call]
            except ValueError as error:  # incompatible sizes, which some versions detect only here
                raise ValueError(f"model.backbone: {error}") from error
        self.clip: Any = model
        # The criterion has its own temperature and bias, so these would get no gradient.
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
        """Whether the model is SigLIP; otherwise it is CLIP."""
        return not is_clip(self.clip)

    def vision_weights(self) -> nn.ModuleList:
        """The vision tower with its projection."""
        return vision_weights(self.clip)

    def freeze_layers(self, num_layers: int) -> None:
        """Do not train the embeddings of both towers, nor the first layers of both; a shallow tower may freeze whole.

        The last layer norms and the projections are trained in any case.
        """
        towers = [self.clip.vision_model, self.clip.text_model]
        depth = max(len(tower.encoder.layers) for tower in towers)
        if num_layers > depth:
            raise ValueError(f"model.freeze_layers must be at most {depth}, the number of layers, got {num_layers}")
        for tower in towers:
            parts = [tower.embeddings, *tower.encoder.layers[:num_layers]]
            if hasattr(tower, "pre_layrnorm"):  # transformers' spelling; only CLIP's vision tower has one
                parts.append(tower.pre_layrnorm)
            for part in parts:
                part.requires_grad_(False)

    def frames(
        self,
        video: Float[Tensor, "B T D"] | UInt8[Tensor, "B T H W 3"],
        mask: Bool[Tensor, "B T"],
        places: Int[Tensor, " N"] | None = None,
    ) -> Float[Tensor, "B T D"]:
        """One vector per frame, not normalized, zeros where the mask is False; frozen features pass unchanged.

        `places` are the positions of the True values in the flattened mask; on a GPU, to find them takes time.
        """
        width, dtype = self.width, self.clip.logit_scale.dtype
        if video.dtype != torch.uint8:
            if video.shape[-1] != width:
                raise ValueError(f"the clips' features have width {video.shape[-1]}, the model expects {width}")
            return video.to(dtype).masked_fill(~mask[..., None], 0)
        size = self.clip.config.vision_config.image_size
        if video.shape[2:4] != (size, size):
            raise ValueError(f"the frames have {tuple(video.shape[2:4])} pixels, the model expects {(size, size)}")
        packing = Packing.of(mask, places)
        if not len(packing.places):
            return torch.zeros(*mask.shape, width, dtype=dtype, device=video.device)
        return packing.pad(self.images(packing.pack(video)))

    def images(self, pixels: UInt8[Tensor, "N H W 3"]) -> Float[Tensor, "N D"]:
        """One vector per RGB frame of the vision tower's image size, not normalized."""
        dtype = self.clip.logit_scale.dtype
        return image_vectors(self.clip, normalize_pixels(pixels, self.pixel_mean, self.pixel_std).to(dtype))

    def text(
        self,
        ids: Int[Tensor, "B L"],
        mask: Bool[Tensor, "B L"],
        places: Int[Tensor, " N"] | None = None,
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B L D"]]:
        """One vector per text, taken at its last token, and one vector per token; none is normalized.

        SigLIP pads every text to its full length, attends to the padding, and takes the vector of the last position.
        CLIP computes no padding: its vectors are zeros. `places` are as in `frames`.
        """
        tower = self.clip.text_model
        if self.is_siglip:
            config, length = tower.config, ids.shape[1]
            ids = ids.masked_fill(~mask, config.pad_token_id)
            ids = nn.functional.pad(ids, (0, config.max_position_embeddings - length), value=config.pad_token_id)
            padded: Tensor = tower.head(tower(input_ids=ids).last_hidden_state)
            return padded[:, -1], padded[:, :length]
        packing, tables = Packing.of(mask, places), tower.embeddings
        embeddings = tables.token_embedding(packing.pack(ids)) + tables.position_embedding(packing.positions)
        states = encode_packed_causally(tower.encoder, embeddings, packing, attention=self.attention)
        tokens = packing.pad(self.clip.text_projection(tower.final_layer_norm(states)))
        return tokens[torch.arange(len(ids), device=ids.device), last_token(mask)], tokens

    @property
    def width(self) -> int:
        """Width D of the frame and text vectors."""
        return vector_width(self.clip.config)

    def text_encoder(self, num_layers: int, *, layer_norm_eps: float | None = None) -> nn.Module:
        """A new transformer like the text tower's, initialized with copies of its first layers.

        `layer_norm_eps` is the epsilon of its LayerNorms; by default that of the text tower.
        """
        tower = self.clip.text_model
        config = deepcopy(tower.config)
        if config.hidden_size != self.width:
            raise ValueError(
                f"the temporal layers are copied from the text tower, whose width {config.hidden_size} "
                f"differs from the width of the frame vectors, {self.width}"
            )
        if num_layers > config.num_hidden_layers:
            raise ValueError(
                f"{num_layers} layers cannot be copied from a text tower with {config.num_hidden_layers} layers"
            )
        config.num_hidden_layers = num_layers
        if layer_norm_eps is not None:
            config.layer_norm_eps = layer_norm_eps
        encoder: nn.Module = type(tower.encoder)(config)
        own = encoder.state_dict()
        encoder.load_state_dict({key: value for key, value in tower.encoder.state_dict().items() if key in own})
        return encoder

    def text_positions(self, size: int) -> nn.Embedding:
        """A position embedding, initialized with the first rows of the text tower's."""
        table: Tensor = self.clip.text_model.embeddings.position_embedding.weight
        if size > len(table):
            raise ValueError(
                f"{size} positions cannot be copied from a text tower with {len(table)}: lower model.max_video_len"
            )
        positions = nn.Embedding(size, table.shape[1])
        positions.load_state_dict({"weight": table[:size]})
        return positions


def backbone_config(values: Mapping[str, Any]) -> Any:
    """The transformers configuration with these sizes; ValueError for an unknown key."""
    kind = values.get("model_type", "clip")
    if kind not in KINDS:
        raise ValueError(unknown_name("model.backbone.model_type", str(kind), list(KINDS)))
    default = KINDS[kind]()
    check_backbone_keys("model.backbone", values, default.to_dict())
    for part in ("text_config", "vision_config"):
        check_backbone_keys(f"model.backbone.{part}", values.get(part) or {}, getattr(default, part).to_dict())
    try:
        return KINDS[kind](**{key: deepcopy(value) for key, value in values.items() if key != "model_type"})
    except Exception as error:  # huggingface_hub raises its own types
        raise ValueError(f"model.backbone: {str(error).splitlines()[-1].strip()}") from error


def check_backbone_keys(where: str, values: Mapping[str, Any], known: Mapping[str, Any]) -> None:
    """ValueError for a key that is not in `known`; `where` is the configuration section for the message."""
    for key in values:
        if key not in known:
            raise ValueError(unknown_name("key", f"{where}.{key}", sorted(known), guess=key))


def plain_config(config: PretrainedConfig) -> dict[str, Any]:
    """A configuration's sizes as plain values, the format that `backbone_config` reads."""
    values: dict[str, Any] = json.loads(config.to_json_string(use_diff=True))
    known = {"": backbone_config({"model_type": config.model_type})}
    known |= {part: getattr(known[""], part) for part in ("text_config", "vision_config")}
    left_out = {"transformers_version", "architectures", "dtype", "_name_or_path"}

    def some(part: str, values: Mapping[str, Any]) -> dict[str, Any]:
        of_part = known[part].to_dict()
        return {key: value for key, value in values.items() if key in of_part and key not in left_out}

    return {key: some(key, value) if key in known else value for key, value in some("", values).items()}
