"""Which steps a second shows: the loss that step localisation is fine-tuned with. S seconds, K steps."""

from dataclasses import dataclass

import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from mmpt_plugin.registry import register_criterion


@dataclass(kw_only=True)
class StepCrossEntropyConfig:
    """Nothing to choose."""


@register_criterion("step_cross_entropy", dataclass=StepCrossEntropyConfig)
class StepCrossEntropy(nn.Module):
    """Binary cross entropy, a mean over all seconds and steps: a second may show several, or none."""

    def __init__(self, config: StepCrossEntropyConfig) -> None:
        super().__init__()

    def forward(self, logits: Float[Tensor, "S K"], shown: Float[Tensor, "S K"]) -> Float[Tensor, ""]:
        return F.binary_cross_entropy_with_logits(logits.to(shown.dtype), shown)
