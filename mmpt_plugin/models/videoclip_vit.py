"""A ViT on sparse frames and a small temporal transformer, trained end to end.

B clips, T frames, L text tokens, D width of CLIP's vectors, E width of this model's own.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmpt_plugin.models.clip import unit
from mmpt_plugin.models.clip_transformer import CLIPTransformer, CLIPTransformerConfig
from mmpt_plugin.registry import register_model


@dataclass(kw_only=True)
class VideoCLIPViTConfig(CLIPTransformerConfig):
    """A ViT with a small temporal transformer; the number of layers and the width are this project's choice."""

    max_video_len: int = 16
    """Frames, or rows of frozen features, per clip."""
    num_temporal_layers: int = 2
    """Transformer layers across frames, initialized with layers of CLIP's text tower."""
    embedding_dim: int = 512
    """Width of the embeddings: the output of both projection heads."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.embedding_dim < 1:
            raise ValueError(f"model.embedding_dim must be at least 1, got {self.embedding_dim}")

    @property
    def hidden_size(self) -> int:
        """Width of the embeddings."""
        return self.embedding_dim


@register_model("videoclip_vit", dataclass=VideoCLIPViTConfig)
class VideoCLIPViT(CLIPTransformer):
    """A ViT on each frame, a small transformer across frames, their mean, and a projection head for each modality.

    The temporal transformer has a residual connection, and projection heads of CLIP's own width start as the identity,
    so training from CLIP's weights starts near `clip_mean`. Train it with `best_fit_nce` on several clips per video.
    """

    heads = (*CLIPTransformer.heads, "video_head.", "text_head.")
    layer_norm_eps = None  # CLIP's own

    def add_heads(self) -> None:
        """See `CLIPModel.add_heads`."""
        super().add_heads()
        self.video_head = projection(self.backbone.width, self.config.embedding_dim)
        self.text_head = projection(self.backbone.width, self.config.embedding_dim)

    def pool_frames(self, frames: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """The projected mean of the temporal transformer's output; ValueError for more than max_video_len frames."""
        return unit(self.video_head(super().pool_frames(frames, mask).to(self.video_head.weight.dtype)))

    def text_vectors(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"], places: Int[Tensor, " N"] | None = None
    ) -> Float[Tensor, "B E"]:
        """CLIP's text vectors, projected to unit vectors of width E."""
        return unit(self.text_head(self.backbone.text(ids, mask, places)[0]))


def projection(width: int, out: int) -> nn.Linear:
    """A linear layer without bias: the identity if the widths are equal, otherwise random."""
    head = nn.Linear(width, out, bias=False)
    if width == out:
        nn.init.eye_(head.weight)
    else:
        nn.init.normal_(head.weight, std=width**-0.5)
    return head
