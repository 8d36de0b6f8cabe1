"""Binary cross entropy per second and step, to fine-tune for step localization. S seconds, K steps."""

from collections.abc import Mapping
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from mmpt_plugin.criterions.criterion import Criterion
from mmpt_plugin.registry import register_criterion


@dataclass(kw_only=True)
class StepCrossEntropyConfig:
    """This criterion has no settings."""


@register_criterion("step_cross_entropy", dataclass=StepCrossEntropyConfig)
class StepCrossEntropy(Criterion):
    """Binary cross entropy, averaged over all seconds and steps; a second may show several steps, or none."""

    gathers = False

    def __init__(self, config: StepCrossEntropyConfig) -> None:
        super().__init__()

    def compute(
        self, logits: Float[Tensor, "S K"], shown: Float[Tensor, "S K"]
    ) -> tuple[Float[Tensor, ""], Mapping[str, Tensor | float]]:
        """The loss in nats; `shown` is 1 where a second shows a step."""
        total = F.binary_cross_entropy_with_logits(logits, shown.to(logits.dtype), reduction="sum")
        return self.mean(total, torch.tensor(shown.numel(), device=shown.device)), {}
