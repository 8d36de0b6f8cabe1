"""The contrastive loss of VideoCLIP: both directions, over the pairs of all GPUs."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial, reduce

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
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
        config, size = self.config, len(video)
        if video.shape[1] % config.parts:
            raise ValueError(f"criterion.parts {config.parts} does not divide the vectors' width {video.shape[1]}")
        first = rank() * size if self.num_ranks > 1 else 0
        target = torch.arange(first, first + size, device=video.device)
        totals: list[Tensor] = []
        metrics: dict[str, Tensor | float] = {"chance_recall@1": 1 / (size * self.num_ranks)}
        for short, name, queries, candidates in (
            ("t2v", "text_to_video", text, video),
            ("v2t", "video_to_text", video, text),
        ):
            wanted = config.directions in ("both", name)
            with torch.set_grad_enabled(wanted and torch.is_grad_enabled()):
                total, hits = self.in_chunks(partial(self.classify, self.all_pairs(candidates)), queries, target)
            totals += [total] if wanted else []
            metrics[f"{short}_recall@1"] = hits / size
        directions = len(totals) if config.average_directions else 1
        return torch.stack(totals).sum() / (size * config.parts * directions), metrics

    def classify(
        self, candidates: Float[Tensor, "N D"], queries: Float[Tensor, "C D"], target: Int[Tensor, " C"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """The cross entropies of C queries, summed over queries and parts, and how many queries score higher with their
        target than with all other candidates; a tie is a miss."""
        scale, parts = self.config.parts * self.scale(), self.config.parts
        scores = [
            scale * query @ candidate.T
            for query, candidate in zip(queries.chunk(parts, dim=1), candidates.chunk(parts, dim=1), strict=True)
        ]
        total = torch.stack([F.cross_entropy(rows, target, reduction="sum") for rows in scores]).sum()
        whole = reduce(torch.add, [rows.detach() for rows in scores])
        return total, ((whole >= whole.gather(1, target[:, None])).sum(dim=1) == 1).float().sum()
