"""Adam with a separate learning rate for the weights of a pre-trained backbone."""

from dataclasses import dataclass, field
from typing import Any

from fairseq.optim import register_optimizer
from fairseq.optim.adam import FairseqAdam, FairseqAdamConfig

from mmpt_plugin.models.clip import BACKBONE


@dataclass
class BackboneAdamConfig(FairseqAdamConfig):
    """fairseq's Adam, and the learning rate of the backbone."""

    backbone_lr: float = field(default=1e-7, metadata={"help": "peak learning rate of the pre-trained backbone"})


@register_optimizer("adam_with_backbone", dataclass=BackboneAdamConfig)
class BackboneAdam(FairseqAdam):
    """Keeps the ratio of the backbone's learning rate to that of the other weights constant under every schedule.

    fairseq's `composite` optimizer needs one schedule per group, and settings that cannot be given as flags.
    """

    def __init__(self, config: Any, params: Any) -> None:
        groups: dict[bool, list[Any]] = {False: [], True: []}
        for weight in params:
            groups[getattr(weight, "param_group", "default") == BACKBONE].append(weight)
        if not groups[True]:
            raise ValueError(
                "optimizer adam_with_backbone found no backbone weights: the model has no trainable ones or, with "
                "common.fp16, needs common.fp16_no_flatten_grads=true"
            )
        scales = {False: 1.0, True: config.backbone_lr / config.lr[0]}
        super().__init__(
            config, [{"params": weights, "lr_scale": scales[kind]} for kind, weights in groups.items() if weights]
        )

    def set_lr(self, lr: float) -> None:
        """Set the rate of the weights outside the backbone; the backbone's follows by its ratio."""
        for group in self.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def get_lr(self) -> float:
        """The learning rate of the weights outside the backbone, if there are any."""
        group = self.param_groups[0]
        rate: float = group["lr"] / group["lr_scale"]
        return rate

    def load_state_dict(self, state_dict: Any, optimizer_overrides: Any = None) -> None:
        """Load fairseq's state, but keep this run's ratio of learning rates."""
        scales = [group["lr_scale"] for group in self.param_groups]
        super().load_state_dict(state_dict, optimizer_overrides)
        for group, scale in zip(self.param_groups, scales, strict=True):
            group["lr_scale"] = scale
