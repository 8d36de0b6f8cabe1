"""Cross entropy per second, to fine-tune for action segmentation. B windows, T seconds, C labels."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from mmpt_plugin.batch import NO_LABEL
from mmpt_plugin.criterions.criterion import Criterion
from mmpt_plugin.registry import register_criterion


@dataclass(kw_only=True)
class FrameCrossEntropyConfig:
    """This criterion has no settings."""


@register_criterion("frame_cross_entropy", dataclass=FrameCrossEntropyConfig)
class FrameCrossEntropy(Criterion):
    """Cross entropy of the label of each second, averaged over all labelled seconds."""

    gathers = False

    def __init__(self, config: FrameCrossEntropyConfig) -> None:
        super().__init__()

    def compute(
        self, logits: Float[Tensor, "B T C"], labels: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor | float]]:
        """The loss, and the share of labelled seconds that are classified correctly."""
        labelled = labels != NO_LABEL
        right = logits.argmax(dim=-1) == labels  # never where there is no label
        total = F.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=NO_LABEL, reduction="sum")
        return self.mean(total, labelled.sum()), {"frame_accuracy": right.sum() / labelled.sum()}
