"""Losses for texts with several candidate clips: the best candidate, or all candidates together, is the positive.

B pairs on this rank, N pairs on all ranks, C texts of this rank scored at a time.
"""

from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from mmpt_plugin.criterions.similarity import SimilarityConfig, SimilarityCriterion
from mmpt_plugin.distributed import gather_ids
from mmpt_plugin.registry import register_criterion


@dataclass(kw_only=True)
class CandidateNCEConfig(SimilarityConfig):
    """The losses over candidate clips compare cosines, so their temperature is lower than VideoCLIP's 1.0."""

    temperature: float = 0.07
    """Similarities are divided by it. 0.07 is where CLIP's starts (Radford et al., 2021, section 2.5)."""


class CandidateNCE(SimilarityCriterion):
    """Classify each text's candidate clips against all clips of the batch.

    The candidates of a text are the clips of its own video: all clips of the batch with the same id, on any rank. The
    mean of the losses over ranks equals the loss of one process that holds all pairs.
    """

    batch_fields = ("video_ids",)
    expects_unit_vectors = True

    def __init__(self, config: CandidateNCEConfig) -> None:
        super().__init__(config)

    def compute(
        self, video: Float[Tensor, "B D"], text: Float[Tensor, "B D"], *, video_ids: Int[Tensor, " B"]
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor | float]]:
        """The mean loss over this rank's texts, and the share of texts that have a candidate with a higher score than
        every clip of the other videos, and its chance."""
        clips, ids = self.all_pairs(video), gather_ids(video_ids) if self.num_ranks > 1 else video_ids
        sums = self.in_chunks(partial(self.classify, clips, ids), text, video_ids)
        loss, hits, chances = (total / len(text) for total in sums)
        return loss, {"t2v_recall@1": hits, "chance_recall@1": chances}

    def classify(
        self,
        clips: Float[Tensor, "N D"],
        ids: Int[Tensor, " N"],
        text: Float[Tensor, "C D"],
        own_ids: Int[Tensor, " C"],
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """Sums over C texts: their losses, how many find their video, and the share of clips that are candidates."""
        scores = self.scale() * text @ clips.T  # (C, N)
        candidates = own_ids[:, None] == ids
        loss = scores.logsumexp(dim=1) - self.positive(scores, candidates)
        best = scores.detach().masked_fill(~candidates, -torch.inf).amax(dim=1)
        other = scores.detach().masked_fill(candidates, -torch.inf).amax(dim=1)
        return loss.sum(), (best > other).float().sum(), candidates.float().mean(dim=1).sum()

    @abstractmethod
    def positive(self, scores: Float[Tensor, "B N"], candidates: Bool[Tensor, "B N"]) -> Float[Tensor, " B"]:
        """The logarithm of the numerator of each text's softmax; the denominator sums exp(score) over all N clips."""


@register_criterion("best_fit_nce", dataclass=CandidateNCEConfig)
class BestFitNCE(CandidateNCE):
    """The positive of a text is the most similar clip of its own video; all other clips of the batch are negatives.

    Start it from pre-trained weights: with random weights the choice is random, so early mistakes reinforce themselves.
    """

    def positive(self, scores: Float[Tensor, "B N"], candidates: Bool[Tensor, "B N"]) -> Float[Tensor, " B"]:
        """The score of each text's most similar candidate."""
        best = scores.masked_fill(~candidates, -torch.inf).argmax(dim=1)
        return scores.gather(1, best[:, None]).squeeze(1)


@register_criterion("mil_nce", dataclass=CandidateNCEConfig)
class MILNCE(CandidateNCE):
    """All clips of a text's own video are its positives, summed (MIL-NCE, Miech et al., CVPR 2020, equation 1).

    Unlike in the paper, the negatives are clips only, not texts of other videos too, to make it comparable with
    `best_fit_nce`.
    """

    def positive(self, scores: Float[Tensor, "B N"], candidates: Bool[Tensor, "B N"]) -> Float[Tensor, " B"]:
        """The logarithm of the sum over each text's candidates of exp(score)."""
        return scores.masked_fill(~candidates, -torch.inf).logsumexp(dim=1)
