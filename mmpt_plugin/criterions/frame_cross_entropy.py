"""A label for every second: the loss that action segmentation is fine-tuned with. B windows, T seconds, C labels."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor, nn

from mmpt_plugin.clips.batch import NO_LABEL
from mmpt_plugin.registry import register_criterion


@dataclass(kw_only=True)
class FrameCrossEntropyConfig:
    """Nothing to choose."""


@register_criterion("frame_cross_entropy", dataclass=FrameCrossEntropyConfig)
class FrameCrossEntropy(nn.Module):
    """Cross entropy, a mean over all seconds that have a label."""

    def __init__(self, config: FrameCrossEntropyConfig) -> None:
        super().__init__()

    def forward(self, logits: Float[Tensor, "B T C"], labels: Int[Tensor, "B T"]) -> Float[Tensor, ""]:
        return F.cross_entropy(logits.flatten(0, 1).float(), labels.flatten(), ignore_index=NO_LABEL)

    def with_metrics(
        self, logits: Float[Tensor, "B T C"], labels: Int[Tensor, "B T"]
    ) -> tuple[Float[Tensor, ""], dict[str, float]]:
        """The loss, and the share of seconds whose label is right."""
        labelled = labels != NO_LABEL
        right = (logits.argmax(dim=-1) == labels)[labelled]
        return self(logits, labels), {"frame_accuracy": float(right.float().mean())}
