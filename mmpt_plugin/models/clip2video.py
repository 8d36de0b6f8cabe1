"""CLIP2Video (Fang et al., arXiv 2106.11097): frame differences, and centers shared by video and text tokens.

B clips, T frames, S frames and their differences, L text tokens, N tokens of either modality, K centers, D width of
CLIP's vectors.
"""

import math
from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmpt_plugin import moved
from mmpt_plugin.models.backbone import Backbone
from mmpt_plugin.models.clip import CLIPModel, CLIPModelConfig, attend, normalized_mean, unit
from mmpt_plugin.models.clip_transformer import LAYER_NORM_EPS
from mmpt_plugin.registry import register_model

CENTER_DEVIATION = 0.125
DIFFERENCE, FRAME = 0, 1


@dataclass(kw_only=True)
class CLIP2VideoConfig(CLIPModelConfig):
    """A CLIP backbone with temporal layers and shared centers; the defaults are the paper's on MSR-VTT and MSVD."""

    num_temporal_layers: int = 4
    """Transformer layers over frames and their differences, initialized with layers of CLIP's text tower."""
    num_centers: int = 5
    """Centers that video and text tokens are aligned to (section 3.3); the paper uses 7 on VATEX."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.num_centers < 1:
            raise ValueError(f"model.num_centers must be at least 1, got {self.num_centers}")

    @property
    def hidden_size(self) -> int:
        """Width of the embeddings: a global and an aligned vector, concatenated."""
        return 2 * self.feature_dim


@register_model("clip2video", dataclass=CLIP2VideoConfig)
class CLIP2Video(CLIPModel):
    """CLIP with temporal difference and temporal alignment blocks (CLIP2Video, Fang et al., arXiv 2106.11097).

    An embedding concatenates a global and an aligned unit vector and divides them by the square root of 2, so a dot
    product is the mean of the two cosines. The paper trains each half with its own cross entropy: use criterion `nce`
    with `parts: 2`.
    """

    heads = ("difference.", "skipping.", "alignment.")

    def add_heads(self) -> None:
        """See `CLIPModel.add_heads`."""
        self.difference = TemporalDifference(
            self.backbone, max_video_len=self.config.max_video_len, num_layers=self.config.num_temporal_layers
        )
        self.skipping = self.backbone.text_encoder(1, layer_norm_eps=LAYER_NORM_EPS)
        self.alignment = Alignment(self.backbone.width, num_centers=self.config.num_centers)

    def pool_frames(self, frames: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """The global and the aligned vector of each clip, concatenated; E is 2 D."""
        self.check_length(frames)
        whole = normalized_mean(self.difference(frames, mask), mask)
        skipped, skipped_mask = frames[:, ::2], mask[:, ::2]
        tokens = torch.cat([frames, self.difference.residual(self.skipping, skipped, skipped_mask)], dim=1)
        return side_by_side(whole, self.alignment(tokens, torch.cat([mask, skipped_mask], dim=1)))

    def text_vectors(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"], places: Int[Tensor, " N"] | None = None
    ) -> Float[Tensor, "B E"]:
        """CLIP's text vector and the aligned vector of all tokens after the start token; SigLIP has no start token."""
        pooled, tokens = self.backbone.text(ids, mask, places)
        first = 0 if self.backbone.is_siglip else 1
        return side_by_side(unit(pooled), self.alignment(tokens[:, first:], mask[:, first:]))


def side_by_side(whole: Float[Tensor, "B D"], aligned: Float[Tensor, "B D"]) -> Float[Tensor, "B E"]:
    """Concatenate two unit vectors into one unit vector; its dot product is the mean of the two cosines."""
    return torch.cat([whole, aligned], dim=1) / math.sqrt(2)


class TemporalDifference(nn.Module):
    """A transformer over frames and the differences between adjacent frames (section 3.2)."""

    def __init__(self, backbone: Backbone, *, max_video_len: int, num_layers: int) -> None:
        super().__init__()
        self.position = backbone.text_positions(max_video_len)
        self.kind = backbone.text_positions(2)
        self.differ = backbone.text_encoder(1, layer_norm_eps=LAYER_NORM_EPS)
        self.norm = nn.LayerNorm(backbone.width)
        self.temporal = backbone.text_encoder(num_layers, layer_norm_eps=LAYER_NORM_EPS)

    def forward(self, frames: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B T D"]:
        """Frames plus the temporal transformer's output; frames where the mask is False are undefined."""
        return self.residual(self.temporal, frames, mask)

    def residual(
        self, encoder: nn.Module, frames: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]
    ) -> Float[Tensor, "B T D"]:
        """Frames plus the encoder's output for them, when it reads frames and differences together."""
        return frames + attend(encoder, *self.interleaved(frames, mask))[:, ::2]

    def interleaved(
        self, frames: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]
    ) -> tuple[Float[Tensor, "B S D"], Bool[Tensor, "B S"]]:
        """frame 1, difference 1, frame 2, .. frame T; a difference has the position of the frame before it.

        A difference is masked unless both of its frames are real. The released code also keeps the difference of the
        last real frame and the padding after it.
        """
        positions: Tensor = self.position(torch.arange(frames.shape[1], device=frames.device))  # (T, D)
        kinds = self.kind.weight
        seen = frames + positions + kinds[FRAME]
        if frames.shape[1] == 1:
            return seen, mask
        both = mask[:, 1:] & mask[:, :-1]
        changes = self.differences(frames, both) + positions[:-1] + kinds[DIFFERENCE]
        size, length, width = frames.shape
        tokens = torch.stack([seen[:, :-1], changes], dim=2).view(size, 2 * length - 2, width)
        token_mask = torch.stack([mask[:, :-1], both], dim=2).view(size, 2 * length - 2)
        return torch.cat([tokens, seen[:, -1:]], dim=1), torch.cat([token_mask, mask[:, -1:]], dim=1)

    def differences(self, frames: Float[Tensor, "B T D"], both: Bool[Tensor, "B T-1"]) -> Float[Tensor, "B T-1 D"]:
        """Differences of adjacent frames, passed through a transformer and scaled to -1 .. 1 by a sigmoid.

        In that transformer, a difference has the position of the frame after it, as in the authors' code.
        """
        positions = self.position(torch.arange(1, frames.shape[1], device=frames.device))  # (T-1, D)
        changes = attend(self.differ, frames[:, 1:] - frames[:, :-1] + positions, both)
        return 2 * torch.sigmoid(self.norm(changes)) - 1


class Alignment(nn.Module):
    """Aggregates tokens as residuals to learned centers, the same centers for video and text (section 3.3)."""

    def __init__(self, width: int, *, num_centers: int) -> None:
        super().__init__()
        self.assign = nn.Parameter(torch.randn(width, num_centers) * CENTER_DEVIATION)
        self.centers = nn.Parameter(torch.randn(num_centers, width) * CENTER_DEVIATION)

    def forward(self, tokens: Float[Tensor, "B N D"], mask: Bool[Tensor, "B N"]) -> Float[Tensor, "B D"]:
        """Normalize the weighted residuals of each center, average them over centers, and normalize the mean."""
        tokens = tokens.masked_fill(~mask[..., None], 0).to(self.assign.dtype)
        weights = (tokens @ self.assign).softmax(dim=-1) * mask[..., None]  # (B, N, K)
        sums = torch.einsum("bnk,bnd->bkd", weights, tokens)
        residuals = sums - weights.sum(dim=1)[..., None] * self.centers
        return unit(unit(residuals).mean(dim=1))


__getattr__ = moved.attributes(__name__)
