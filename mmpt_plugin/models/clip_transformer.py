"""A transformer across CLIP's frame vectors, and their mean."""

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmpt_plugin.models.clip import CLIPModel, CLIPModelConfig, attend, normalized_mean
from mmpt_plugin.registry import register_model

LAYER_NORM_EPS = 1e-12  # of the layers that CLIP4Clip and CLIP2Video add; CLIP's own is 1e-5


@dataclass(kw_only=True)
class CLIPTransformerConfig(CLIPModelConfig):
    """CLIP and layers across frames; the defaults are CLIP4Clip's."""

    num_temporal_layers: int = 4
    """Transformer layers across frames, initialized with layers of CLIP's text tower."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_temporal_layers < 1:
            raise ValueError(f"model.num_temporal_layers must be at least 1, got {self.num_temporal_layers}")


@register_model("clip_transformer", dataclass=CLIPTransformerConfig)
class CLIPTransformer(CLIPModel):
    """The mean of frame vectors after a transformer across them, and CLIP's text vector (CLIP4Clip, Luo et al., 2021,
    `seqTransf`)."""

    heads: tuple[str, ...] = ("position.", "temporal.")
    layer_norm_eps: float | None = LAYER_NORM_EPS

    def add_heads(self) -> None:
        """See `CLIPModel.add_heads`."""
        self.position = self.backbone.text_positions(self.config.max_video_len)
        self.temporal = self.backbone.text_encoder(self.config.num_temporal_layers, layer_norm_eps=self.layer_norm_eps)

    def pool_frames(self, frames: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """The unit vector of the mean of the transformer's unit outputs, which are added to its inputs."""
        self.check_length(frames)
        positions = self.position(torch.arange(frames.shape[1], device=frames.device))  # (T, D)
        return normalized_mean(frames + attend(self.temporal, frames + positions, mask), mask)
