"""Adam with a rate of its own for the weights that a pre-trained backbone brought."""

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
    """The backbone's rate keeps its ratio to all others' under every schedule.

    fairseq's own `composite` optimizer wants a schedule a group, and settings that no flag can say.
    """

    def __init__(self, config: Any, params: Any) -> None:
        groups: dict[bool, list[Any]] = {False: [], True: []}
        for weight in params:
            groups[getattr(weight, "param_group", "default") == BACKBONE].append(weight)
        if not groups[True]:
            raise ValueError(
                "optimizer adam_with_backbone found no weights of a backbone: the model has none that learn, or, "
                "with common.fp16, needs common.fp16_no_flatten_grads=true"
            )
        scales = {False: 1.0, True: config.backbone_lr / config.lr[0]}
        super().__init__(
            config, [{"params": weights, "lr_scale": scales[kind]} for kind, weights in groups.items() if weights]
        )

    def set_lr(self, lr: float) -> None:
        for group in self.param_groups:
            group["lr"] = lr * group["lr_scale"]

    def get_lr(self) -> float:
        """The rate of all other weights, where there are some."""
        group = self.param_groups[0]
        rate: float = group["lr"] / group["lr_scale"]
        return rate

    def load_state_dict(self, state_dict: Any, optimizer_overrides: Any = None) -> None:
        """As fairseq's; but the ratio of rates is this run's, as all of its rates are."""
        scales = [group["lr_scale"] for group in self.param_groups]
        super().load_state_dict(state_dict, optimizer_overrides)
        for group, scale in zip(self.param_groups, scales, strict=True):
            group["lr_scale"] = scale
