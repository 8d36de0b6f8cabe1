"""What all models on a CLIP backbone share.

B clips, T frames, H rows and W columns of pixels, S tokens, L text tokens, D width of the backbone's vectors, E width
of a model's own.
"""

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmpt_plugin.checkpoint import find_checkpoint, load_strictly
from mmpt_plugin.clips.batch import Batch
from mmpt_plugin.models.backbone import Backbone, backbone_config, last_place, load_clip, plain_config, vector_width
from mmpt_plugin.models.pretrained import (
    PretrainedEmbedder,
    full_mask,
    plain_values,
    read_checkpoint,
    start_from_pretrained,
)

# What weights that a pre-trained backbone brought are marked with, for rates of their own.
BACKBONE = "backbone"


@dataclass(kw_only=True)
class ClipModelConfig:
    """What all models on CLIP have; defaults are CLIP ViT-B/32 and the sizes of CLIP4Clip's experiments."""

    clip: str | None = None
    """A CLIP or SigLIP to start from, by hub name or folder; None starts from random weights."""
    pretrained: str | None = None
    """A model of this family to start from: a folder, its name on the hub, or a fairseq checkpoint."""
    backbone: dict[str, Any] = field(default_factory=dict)
    """Sizes of random weights, as transformers' CLIPConfig or, with model_type: siglip, SiglipConfig names them."""
    freeze_vision: bool = False
    """Leave the vision tower as it is; it learns nothing from frozen features anyway."""
    max_video_len: int = 12
    """Frames, or rows of frozen features, of a clip."""
    max_text_len: int = 30
    """Word pieces of a text that are read, the first and the last token not counted."""
    chunk_size: int = 0
    """Clips, and texts, that are encoded at a time in training; 0 for all. Memory then holds the activations of one
    chunk, and gradients stay exact, for a second forward pass."""

    def __post_init__(self) -> None:
        if self.chunk_size < 0:
            raise ValueError(f"model.chunk_size must be 0 or more, got {self.chunk_size}")
        if self.max_video_len < 1:
            raise ValueError(f"model.max_video_len must be at least 1, got {self.max_video_len}")
        if self.max_text_len + 2 > self.max_position_embeddings:
            raise ValueError(
                f"model.max_text_len {self.max_text_len} needs two places more than the text tower's "
                f"{self.max_position_embeddings}"
            )

    @property
    def sizes(self) -> Any:
        """The backbone's whole configuration."""
        return backbone_config(self.backbone)

    @property
    def feature_dim(self) -> int:
        """The width of frozen features, which is that of the backbone's vectors."""
        return vector_width(self.sizes)

    @property
    def hidden_size(self) -> int:
        """The width of what the model makes of a clip, and of a text."""
        return self.feature_dim

    @property
    def image_size(self) -> int:
        """Pixels a side of the frames it takes."""
        size: int = self.sizes.vision_config.image_size
        return size

    @property
    def vocab_size(self) -> int:
        size: int = self.sizes.text_config.vocab_size
        return size

    @property
    def max_position_embeddings(self) -> int:
        size: int = self.sizes.text_config.max_position_embeddings
        return size


class ClipModel(PretrainedEmbedder):
    """A model on CLIP's towers: frames, or their frozen features, and texts into one space of unit vectors."""

    config_type: type = ClipModelConfig
    takes_frames = True
    heads: tuple[str, ...] = ()

    def __init__(self, config: ClipModelConfig) -> None:
        super().__init__()
        model, pixels = None, None
        weights: dict[str, Tensor] = {}
        if config.pretrained is not None:
            found, weights = read_checkpoint(find_checkpoint(config.pretrained))
            config = replace(config, backbone=backbone_of(found, where=config.pretrained))
        elif config.clip is not None:
            model, pixels = load_clip(config.clip)
            config = replace(config, backbone=plain_config(model.config))
        self.config: Any = config
        self.backbone = Backbone(config.sizes, model, pixels)
        if config.pretrained is not None:
            start_backbone(self.backbone, weights, where=config.pretrained)
        self.add_heads()
        if config.pretrained is not None:
            start_from_pretrained(self, weights, where=config.pretrained)
        for weight in self.backbone.parameters():
            weight.param_group = BACKBONE  # type: ignore[attr-defined]
        if config.freeze_vision:
            self.backbone.vision_weights().requires_grad_(False)

    def add_heads(self) -> None:
        """For those who build on this model; the backbone has its first weights already."""

    def forward(self, batch: Batch) -> tuple[Float[Tensor, "B E"], Float[Tensor, "B E"]]:
        """The video and the text of every pair."""
        return self.encode_video(batch.video, batch.video_mask), self.encode_text(batch.text, batch.text_mask)

    def encode_video(
        self,
        video: Float[Tensor, "B T D"] | UInt8[Tensor, "B T H W 3"],
        mask: Bool[Tensor, "B T"] | None = None,
    ) -> Float[Tensor, "B E"]:
        """One unit vector a clip of RGB frames or of frozen features; `mask` is False where there is no frame."""
        return chunked(self.video_vectors, video, full_mask(video, mask), size=self.config.chunk_size)

    def encode_text(
        self, text: Int[Tensor, "B L"] | Sequence[str], mask: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B E"]:
        """One unit vector a text: token ids with their mask, or strings, which need a tokenizer.

        A text is cut to max_text_len word pieces; its last token, CLIP's end of text, is kept.
        """
        if not isinstance(text, Tensor):
            text, mask = self.tokenize(list(text))
        ids, mask = cut_text(text, full_mask(text, mask), length=self.config.max_text_len + 2)
        return chunked(self.text_vectors, ids, mask, size=self.config.chunk_size)

    def video_vectors(self, video: Tensor, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        return self.pool_frames(self.backbone.frames(video, mask), mask)

    @abstractmethod
    def pool_frames(self, frames: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """One unit vector a clip, of its frames' vectors."""

    def text_vectors(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B E"]:
        """One unit vector a text; here CLIP's own."""
        return nn.functional.normalize(self.backbone.text(ids, mask)[0], dim=-1)

    def check_length(self, frames: Float[Tensor, "B T D"]) -> None:
        """For models that know places in time only so far."""
        if frames.shape[1] > self.config.max_video_len:
            raise ValueError(
                f"a clip of {frames.shape[1]} frames is longer than the model's max_video_len "
                f"{self.config.max_video_len}"
            )


def attend(encoder: nn.Module, tokens: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
    """All real tokens to all real tokens; what stands at padded places is of no use.

    A row without any real token attends to its first, so that nothing is divided by zero.
    """
    none = ~mask.any(dim=1, keepdim=True)
    visible = mask | (none & (torch.arange(mask.shape[1], device=mask.device) == 0))
    states: Tensor = encoder(inputs_embeds=tokens, attention_mask=visible[:, None, None, :]).last_hidden_state
    return states


def normalized_mean(vectors: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
    """The unit vector of the mean of unit vectors; zeros where nothing is real."""
    unit = nn.functional.normalize(vectors, dim=-1).masked_fill(~mask[..., None], 0)
    return nn.functional.normalize(unit.sum(dim=1), dim=-1)


def chunked(
    encode: Callable[[Tensor, Tensor], Tensor], rows: Tensor, mask: Bool[Tensor, "B S"], *, size: int
) -> Float[Tensor, "B E"]:
    """`encode(rows, mask)`, `size` rows at a time; the backward pass makes each chunk's activations anew.

    GradCache (Gao et al., 2021): gradients are those of the whole batch, dropout included, while the memory of
    activations is one chunk's.
    """
    if size == 0 or len(rows) <= size:
        return encode(rows, mask)
    parts = zip(torch.split(rows, size), torch.split(mask, size), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([encode(*part) for part in parts])
    return torch.cat([checkpoint(encode, *part, use_reentrant=False) for part in parts])


def cut_text(
    ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"], *, length: int
) -> tuple[Int[Tensor, "B _"], Bool[Tensor, "B _"]]:
    """At most `length` tokens a text; one that is cut keeps its last."""
    if ids.shape[1] <= length:
        return ids, mask
    last = last_place(mask)
    ends = ids.gather(1, last[:, None]).squeeze(1)
    kept = ids[:, :length].clone()
    kept[:, -1] = torch.where(last >= length, ends, kept[:, -1])
    return kept, mask[:, :length]


def backbone_of(config: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The sizes of a checkpoint's backbone, by what it says of its configuration."""
    if "backbone" not in config:
        raise ValueError(f"model.pretrained: {where} is no model on CLIP")
    sizes: dict[str, Any] = plain_values(ClipModelConfig, config)["backbone"]
    return sizes


def start_backbone(backbone: Backbone, weights: Mapping[str, Tensor], *, where: str) -> None:
    """A checkpoint's towers, before anything is copied from them."""
    prefix = "backbone."
    own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    load_strictly(backbone, own, where=where)
