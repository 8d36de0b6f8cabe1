"""The contrastive loss of VideoCLIP: both directions, over the pairs of all GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmpt_plugin.criterions.similarity import SimilarityConfig, SimilarityCriterion
from mmpt_plugin.distributed import rank
from mmpt_plugin.registry import register_criterion


@dataclass(kw_only=True)
class NCEConfig(SimilarityConfig):
    """The contrastive loss; the defaults are VideoCLIP's (section 3.2)."""

    directions: str = "both"
    """Cross entropies in the loss: both, text_to_video or video_to_text. The original fine-tunes for retrieval with
    only text_to_video, and for question answering with only video_to_text."""
    average_directions: bool = False
    """Take the mean of the directions' cross entropies, as CLIP and CLIP4Clip do, instead of their sum. Adam's steps
    hardly depend on the factor of 2, but the norm of the gradient, which `optimization.clip_norm` limits, does."""
    parts: int = 1
    """Number of parts of equal width in each vector; every part has its own cross entropies and the loss is their mean.
    clip2video needs 2. The similarity of a part is its dot product times `parts`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.parts < 1:
            raise ValueError(f"criterion.parts must be at least 1, got {self.parts}")
        if self.directions not in ("both", "text_to_video", "video_to_text"):
            raise ValueError(
                f"criterion.directions must be both, text_to_video or video_to_text, got {self.directions}"
            )


@register_criterion("nce", dataclass=NCEConfig)
class NCE(SimilarityCriterion):
    """Cross entropy of each video's own text and of each text's own video (VideoCLIP, section 3.2).

    With torch.distributed, each rank scores its own B pairs against the N pairs of all ranks. The mean over ranks,
    which data-parallel training minimizes, equals the loss of one process that holds all N pairs.
    """

    config: NCEConfig

    def __init__(self, config: NCEConfig) -> None:
        super().__init__(config)

    def compute(
        self, video: Float[Tensor, "B D"], text: Float[Tensor, "B D"]
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor | float]]:
        """The sum or the mean of the directions' cross entropies, each averaged over this rank's pairs, and the
        in-batch recall@1 of both directions: the share of pairs that score higher than all others, and its chance."""
        if video.shape[1] % self.config.parts:
            raise ValueError(f"criterion.parts {self.config.parts} does not divide the vectors' width {video.shape[1]}")
        pairs = list(zip(video.chunk(self.config.parts, dim=1), text.chunk(self.config.parts, dim=1), strict=True))
        first = rank() * len(video) if self.num_ranks > 1 else 0
        target = torch.arange(first, first + len(video), device=video.device)
        scale = self.config.parts * self.scale()
        scores = {
            "text_to_video": [scale * text @ self.all_pairs(video).T for video, text in pairs],  # (B, N) per part
            "video_to_text": [scale * video @ self.all_pairs(text).T for video, text in pairs],
        }
        wanted = [rows for name, parts in scores.items() if self.config.directions in ("both", name) for rows in parts]
        losses = torch.stack([F.cross_entropy(rows, target) for rows in wanted])
        loss = losses.mean() if self.config.average_directions else losses.sum() / self.config.parts
        metrics = {
            f"{short}_recall@1": strict_recall_at_1(torch.stack(scores[name]).detach().sum(dim=0), target)
            for short, name in (("t2v", "text_to_video"), ("v2t", "video_to_text"))
        }
        return loss, metrics | {"chance_recall@1": 1 / scores["text_to_video"][0].shape[1]}


def strict_recall_at_1(scores: Float[Tensor, "B N"], target: Tensor) -> Float[Tensor, ""]:
    """The share of rows whose target scores higher than every other entry; a tie is a miss."""
    right = scores.gather(1, target[:, None])
    return ((scores >= right).sum(dim=1) == 1).float().mean()
