"""SigLIP's loss (Zhai et al., ICCV 2023): binary classification of every combination of a video and a text.

B pairs on this rank, C texts in a chunk.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from mmpt_plugin.criterions.criterion import Criterion
from mmpt_plugin.distributed import from_previous_rank
from mmpt_plugin.registry import register_criterion


@dataclass(kw_only=True)
class SigmoidConfig:
    """SigLIP's loss; temperature and bias are learned, and the defaults are the paper's start values (section 3.2)."""

    temperature: float = 0.1
    """Start value of the learned temperature, which divides the cosines."""
    bias: float = -10.0
    """Start value of the learned bias, which is added to the scaled cosines. -10, because most pairs are negative."""
    text_chunk_size: int = 1024
    """Texts scored at a time against this rank's videos. Lower it to save memory; the loss does not change."""

    RENAMED: ClassVar[dict[str, str]] = {"texts_at_once": "text_chunk_size"}

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"criterion.temperature must be positive, got {self.temperature}")
        if self.text_chunk_size < 1:
            raise ValueError(f"criterion.text_chunk_size must be at least 1, got {self.text_chunk_size}")


@register_criterion("sigmoid", dataclass=SigmoidConfig)
class Sigmoid(Criterion):
    """Binary cross entropy of scaled cosines, summed over all combinations and divided by the number of pairs (SigLIP).

    The model must return unit vectors. Text embeddings are exchanged in a ring (SigLIP, section 3.3): a rank holds the
    texts of one rank at a time and scores `text_chunk_size` of them at a time, also in the backward pass. The mean over
    ranks equals the loss of one process that holds all pairs.
    """

    expects_unit_vectors = True

    def __init__(self, config: SigmoidConfig) -> None:
        super().__init__()
        self.config = config
        self.log_scale = nn.Parameter(torch.tensor([-math.log(config.temperature)]))
        self.bias = nn.Parameter(torch.tensor([config.bias]))

    def compute(
        self, video: Float[Tensor, "B D"], text: Float[Tensor, "B D"]
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor | float]]:
        """The loss in nats per pair of this rank, and the in-batch recall@1 of videos: the share of videos whose own
        text scores higher than the texts of all other pairs, and its chance."""
        positions = torch.arange(len(video), device=video.device)
        none = torch.full_like(positions, -1)
        loss = video.new_zeros(())
        best_other = video.new_full((len(video),), -torch.inf)
        own = (video * text).sum(dim=1).detach()
        for step in range(self.num_ranks):
            text = from_previous_rank(text) if step else text
            for begin in range(0, len(text), self.config.text_chunk_size):
                some = slice(begin, begin + self.config.text_chunk_size)
                own_position = (positions if step == 0 else none) - begin
                part: Tensor = checkpoint(self.chunk, video, text[some], own_position, use_reentrant=False)
                loss = loss + part
                with torch.no_grad():
                    others = (video @ text[some].T).masked_fill(is_own(own_position, text[some]), -torch.inf)
                    best_other = torch.maximum(best_other, others.amax(dim=1))
        metrics = {"v2t_recall@1": (own > best_other).float().mean()}
        return loss / len(video), metrics | {"chance_recall@1": 1 / (len(video) * self.num_ranks)}

    def chunk(
        self, video: Float[Tensor, "B D"], text: Float[Tensor, "C D"], own_position: Int[Tensor, " B"]
    ) -> Float[Tensor, ""]:
        """The loss summed over all combinations of these videos and texts.

        `own_position` is the index of each video's own text in the chunk; an index outside the chunk means none.
        """
        logits = self.log_scale.to(video.dtype).exp() * video @ text.T + self.bias.to(video.dtype)
        return -F.logsigmoid(torch.where(is_own(own_position, text), logits, -logits)).sum()


def is_own(own_position: Int[Tensor, " B"], text: Float[Tensor, "C D"]) -> Bool[Tensor, "B C"]:
    """Which text of the chunk is each video's own; none for an index outside the chunk."""
    return own_position[:, None] == torch.arange(len(text), device=text.device)
