"""The contrastive loss of VideoCLIP: both directions, over the pairs of all GPUs."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmpt_plugin.criterions.similarity import SimilarityConfig, SimilarityCriterion
from mmpt_plugin.distributed import all_gather, rank
from mmpt_plugin.registry import register_criterion


@dataclass(kw_only=True)
class NCEConfig(SimilarityConfig):
    """Defaults are the paper's: plain dot products."""

    directions: str = "both"
    """both; or text_to_video alone, with which the original fine-tunes for retrieval, or video_to_text, for answers."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.directions not in ("both", "text_to_video", "video_to_text"):
            raise ValueError(
                f"criterion.directions must be both, text_to_video or video_to_text, got {self.directions}"
            )


@register_criterion("nce", dataclass=NCEConfig)
class NCE(SimilarityCriterion):
    """Pick the right text for each video, and the right video for each text (VideoCLIP, section 3.2).

    Under torch.distributed each rank scores its own B pairs against the N pairs of all ranks. The mean of the
    ranks' losses, which is what data-parallel training descends, is the loss of one process holding all N.
    """

    config: NCEConfig

    def __init__(self, config: NCEConfig) -> None:
        super().__init__(config)

    def forward(self, video: Float[Tensor, "B D"], text: Float[Tensor, "B D"]) -> Float[Tensor, ""]:
        """The cross entropies of the directions summed, each a mean over this rank's pairs, in nats."""
        loss, _ = self.with_metrics(video, text)
        return loss

    def with_metrics(
        self, video: Float[Tensor, "B D"], text: Float[Tensor, "B D"]
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """The loss, and the in-batch recall@1 of both directions: the share of pairs that beat all others."""
        video, text = self.prepare(video, text)
        target = torch.arange(len(video), device=video.device) + rank() * len(video)
        scale = self.scale()
        text_to_video = scale * text @ all_gather(video).T  # (B, N)
        video_to_text = scale * video @ all_gather(text).T
        scores = {"text_to_video": text_to_video, "video_to_text": video_to_text}
        wanted = [rows for name, rows in scores.items() if self.config.directions in ("both", name)]
        loss = torch.stack([F.cross_entropy(rows, target) for rows in wanted]).sum()
        with torch.no_grad():
            metrics = {
                "t2v_recall@1": strict_recall_at_1(text_to_video, target),
                "v2t_recall@1": strict_recall_at_1(video_to_text, target),
            }
        return loss, metrics


def strict_recall_at_1(scores: Float[Tensor, "B N"], target: Tensor) -> float:
    """The share of rows whose target beats every other score; a tie is a miss."""
    right = scores.gather(1, target[:, None])
    return float(((scores >= right).sum(dim=1) == 1).float().mean())
