"""Base class and configuration of the models on a CLIP backbone.

B clips, T frames, H rows and W columns of pixels, S tokens, L text tokens, D width of the backbone's vectors, E width
of a model's own.
"""

import json
from abc import abstractmethod
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn

from mmpt_plugin import moved
from mmpt_plugin.checkpoint import find_checkpoint, load_strictly
from mmpt_plugin.features.clip import load_clip, vector_width, weights_digest
from mmpt_plugin.models.backbone import Backbone, backbone_config, plain_config
from mmpt_plugin.models.embedding import path_list, read_ahead
from mmpt_plugin.models.packed import check_attention
from mmpt_plugin.models.pretrained import (
    PretrainedEmbedder,
    plain_values,
    read_checkpoint,
    start_from_pretrained,
)
from mmpt_plugin.protocols import Encoder
from mmpt_plugin.video.sparse_frames import FramesConfig, check_sampling, sample_times

# The parameter group of the backbone's weights, which may have their own learning rate.
BACKBONE = "backbone"


@dataclass(kw_only=True)
class CLIPModelConfig:
    """Settings common to all models on a CLIP backbone; the defaults are CLIP ViT-B/32 and the lengths of CLIP4Clip."""

    clip: str | None = None
    """CLIP or SigLIP whose weights the towers start from: hub name, folder, or file of OpenAI's CLIP. Null starts from
    random weights."""
    pretrained: str | None = None
    """Model of this family to start training from: a folder, a hub name, a fairseq checkpoint, or a file of CLIP4Clip
    or CLIP2Video."""
    backbone: dict[str, Any] = field(default_factory=dict)
    """Sizes of randomly initialised towers, under the names of transformers' CLIPConfig, or of SiglipConfig with
    `model_type: siglip`. Ignored with `clip` or `pretrained`, which bring their own sizes."""
    freeze_vision: bool = False
    """Do not train the vision tower. Set it when you train on frozen features, which do not pass through that tower."""
    freeze_layers: int | None = None
    """Do not train the embeddings of both towers (tokens, patches, class and positions, with CLIP's layer norm behind
    them), nor the first this many layers of both; 0 freezes only the embeddings, null nothing. CLIP4Clip trains with
    0."""
    max_video_len: int = 12
    """Frames, or rows of frozen features, per clip. CLIP4Clip uses 12."""
    max_text_len: int = 30
    """Maximum word pieces per text, not counting the start and the end token. A longer text is cut and keeps its end
    token."""
    sampling: str = "uniform"
    """Which frames of a video the model reads: uniform, head, tail, clip4clip or clip2video, see `FramesConfig`."""
    feature_framerate: int = 1
    """How densely head, tail, clip4clip and clip2video choose from the frames of a video, see `FramesConfig`."""
    chunk_size: int = 0
    """Clips, and texts, encoded at a time in training; 0 encodes the whole batch at once. Only one chunk's activations
    are in memory, and gradients are exact, at the cost of a second forward pass (GradCache)."""
    attention: str = "auto"
    """How CLIP's text tower attends, which pads nothing else: `padded` pads each text of the batch to the longest,
    `jagged` uses kernels of a GPU that take texts of different lengths. `auto` is jagged on a GPU where a first small
    comparison of both gives the same. SigLIP pads every text, because it was trained so."""

    def __post_init__(self) -> None:
        if self.chunk_size < 0:
            raise ValueError(f"model.chunk_size must be 0 or more, got {self.chunk_size}")
        if (self.freeze_layers or 0) < 0:
            raise ValueError(f"model.freeze_layers must be 0 or more, or null, got {self.freeze_layers}")
        if self.max_video_len < 1:
            raise ValueError(f"model.max_video_len must be at least 1, got {self.max_video_len}")
        check_attention(self.attention)
        check_sampling(self, key="model")
        if self.max_text_len + 2 > self.max_position_embeddings:
            raise ValueError(
                f"model.max_text_len {self.max_text_len} needs {self.max_text_len + 2} positions, including the start "
                f"and the end token, but the text tower has {self.max_position_embeddings}"
            )

    @property
    def sizes(self) -> Any:
        """The complete configuration of the backbone."""
        return backbone_config(self.backbone)

    @property
    def feature_dim(self) -> int:
        """Width of frozen features, equal to the width of the backbone's vectors."""
        return vector_width(self.sizes)

    @property
    def hidden_size(self) -> int:
        """Width of the embeddings of clips and texts."""
        return self.feature_dim

    @property
    def image_size(self) -> int:
        """Side length, in pixels, of the frames that the model expects."""
        size: int = self.sizes.vision_config.image_size
        return size

    @property
    def frames(self) -> FramesConfig:
        """Which frames of a video the model reads."""
        return FramesConfig(
            num_frames=self.max_video_len,
            size=self.image_size,
            sampling=self.sampling,
            feature_framerate=self.feature_framerate,
        )

    @property
    def vocab_size(self) -> int:
        """Number of token ids in the text tower's vocabulary."""
        size: int = self.sizes.text_config.vocab_size
        return size

    @property
    def max_position_embeddings(self) -> int:
        """Positions of the text tower, including the start and the end token."""
        size: int = self.sizes.text_config.max_position_embeddings
        return size


class CLIPModel(PretrainedEmbedder):
    """A model on CLIP's towers: maps frames, or their frozen features, and texts to unit vectors in the same space."""

    config_type: type = CLIPModelConfig
    takes_frames = True
    unit_vectors = True
    of_the_machine = ("attention",)
    heads: tuple[str, ...] = ()

    def __init__(self, config: CLIPModelConfig) -> None:
        super().__init__(config)
        model, pixels = None, None
        weights: dict[str, Tensor] = {}
        if config.pretrained is not None:
            path = find_checkpoint(config.pretrained)
            found, weights = read_checkpoint(path, max_video_len=config.max_video_len)
            config = replace(config, backbone=backbone_of(found, where=config.pretrained))
        elif config.clip is not None:
            model, pixels = load_clip(config.clip, key="model.clip")
            config = replace(config, backbone=plain_config(model.config))
        self.config = config
        self.backbone = Backbone(config.sizes, model, pixels, attention=config.attention)
        if config.pretrained is not None:
            start_backbone(self.backbone, weights, where=config.pretrained)
        self.add_heads()
        if config.pretrained is not None:
            start_from_pretrained(self, weights, where=config.pretrained)
        for weight in self.backbone.parameters():
            weight.param_group = BACKBONE  # type: ignore[attr-defined]
        if config.freeze_vision:
            self.backbone.vision_weights().requires_grad_(False)
        if config.freeze_layers is not None:
            self.backbone.freeze_layers(config.freeze_layers)

    def add_heads(self) -> None:
        """Create the weights that a subclass adds; the backbone already has its starting weights."""

    def video_vectors(
        self, video: Tensor, mask: Bool[Tensor, "B T"], places: Int[Tensor, " N"] | None = None
    ) -> Float[Tensor, "B E"]:
        """One unit vector per clip of RGB frames or frozen features."""
        return self.pool_frames(self.backbone.frames(video, mask, places), mask)

    @abstractmethod
    def pool_frames(self, frames: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B E"]:
        """One unit vector per clip, from the vectors of its frames."""

    def text_vectors(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"], places: Int[Tensor, " N"] | None = None
    ) -> Float[Tensor, "B E"]:
        """One unit vector per text; here CLIP's text vector."""
        return unit(self.backbone.text(ids, mask, places)[0])

    def check_encoder(self, encoder: Encoder) -> None:
        """ValueError unless the encoder is this model's own vision tower: no other frozen features fit the model."""
        super().check_encoder(encoder)
        about = json.loads(encoder.fingerprint) if encoder.fingerprint.startswith("{") else {}
        own = about.get("weights") == weights_digest(self.backbone.vision_weights())
        pixels = [self.backbone.pixel_mean.tolist(), self.backbone.pixel_std.tolist()]
        if not own or not np.allclose([about["mean"], about["std"]], pixels):
            raise ValueError(
                f"the encoder ({encoder.fingerprint}) is not this model's vision tower, or normalizes pixels "
                "differently: pass no encoder, and the model reads frames itself"
            )

    def embed_videos(
        self,
        paths: str | Path | Iterable[str | Path],
        encoder: str | Mapping[str, Any] | Encoder | None = None,
        *,
        truncate: bool = False,
        batch_size: int = 64,
    ) -> Float[Tensor, "V E"]:
        """One vector per video file, float32 on the CPU, from max_video_len frames that `sampling` takes of the video.

        With `encoder`, or an encoder saved with the model, the model reads frozen features as in
        `Embedder.embed_videos`; the encoder must have the weights of the model's own vision tower. A file that cannot
        be read is a ValueError that names it.
        """
        if encoder is not None or self.encoder is not None:
            return super().embed_videos(paths, encoder, truncate=truncate, batch_size=batch_size)
        self.check_whole_videos(truncate=truncate)
        return self.embed_frames(read_ahead(self.read_frames, path_list(paths)), batch_size=batch_size)

    @staticmethod
    def check_whole_videos(*, truncate: bool) -> None:
        """ValueError for `truncate`, which only models that read features support."""
        if truncate:
            raise ValueError(
                "truncate needs a model that reads features: this model spreads frames over the whole video"
            )

    def read_frames(self, path: Path) -> UInt8[Tensor, "_ H W 3"]:
        """The frames of a video file that `embed_videos` encodes."""
        from mmpt_plugin.video.decode import read_squares, timed  # PyAV is an extra

        info = timed(path)
        times = sample_times(0.0, info.duration, self.config.frames, duration=info.duration, fps=info.fps)
        frames = read_squares(path, times, size=self.config.image_size)
        return torch.from_numpy(np.stack([frame for frame in frames if frame is not None]))

    @torch.inference_mode()
    def embed_frames(
        self, clips: Iterable[UInt8[Tensor, "_ H W 3"] | Float[Tensor, "_ D"]], *, batch_size: int = 64
    ) -> Float[Tensor, "V E"]:
        """One vector per clip of at most max_video_len frames, or vectors of them, float32 on the CPU."""
        waiting, vectors = iter(clips), []
        while batch := list(islice(waiting, batch_size)):
            vectors.append(self._encode_windows(batch))
        return torch.cat(vectors) if vectors else torch.zeros(0, self.config.hidden_size)

    def check_length(self, frames: Float[Tensor, "B T D"]) -> None:
        """ValueError for more than max_video_len frames: the model has no position embeddings beyond that."""
        if frames.shape[1] > self.config.max_video_len:
            raise ValueError(
                f"a clip of {frames.shape[1]} frames is longer than the model's max_video_len "
                f"{self.config.max_video_len}"
            )


def attend(encoder: nn.Module, tokens: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B S D"]:
    """Self-attention over the tokens where the mask is True; the states of padding are undefined.

    A row of padding only attends to its first token, which avoids a division by zero.
    """
    none = ~mask.any(dim=1, keepdim=True)
    visible = mask | (none & (torch.arange(mask.shape[1], device=mask.device) == 0))
    states: Tensor = encoder(inputs_embeds=tokens, attention_mask=visible[:, None, None, :]).last_hidden_state
    return states


def normalized_mean(vectors: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
    """The mean of the unit vectors where the mask is True, normalized; zeros for a row of padding only."""
    return unit(unit(vectors).masked_fill(~mask[..., None], 0).sum(dim=1))


def unit(vectors: Float[Tensor, "*_ D"]) -> Float[Tensor, "*_ D"]:
    """The vectors divided by their lengths, in float32 if they are in half precision."""
    return nn.functional.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)), dim=-1)


def backbone_of(config: Mapping[str, Any], *, where: str) -> dict[str, Any]:
    """The backbone's sizes from a checkpoint's configuration; ValueError if it has none."""
    if "backbone" not in config:
        raise ValueError(f"model.pretrained: {where} is not a model on a CLIP backbone: its config has no 'backbone'")
    sizes: dict[str, Any] = plain_values(CLIPModelConfig, config)["backbone"]
    return sizes


def start_backbone(backbone: Backbone, weights: Mapping[str, Tensor], *, where: str) -> None:
    """Load the towers of a checkpoint; call it before other layers are copied from them."""
    prefix = "backbone."
    own = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    load_strictly(backbone, own, where=where)


__getattr__ = moved.attributes(__name__)
