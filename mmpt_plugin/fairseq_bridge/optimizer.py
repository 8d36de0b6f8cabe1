"""Optimizers: torch's fused AdamW; Adam with a separate learning rate for a backbone, and CLIP4Clip's variants."""

from dataclasses import dataclass, field
from typing import Any

import torch
from fairseq.dataclass import FairseqDataclass
from fairseq.optim import FairseqOptimizer, register_optimizer
from fairseq.optim.adam import Adam, FairseqAdam, FairseqAdamConfig
from omegaconf import II
from torch import nn

from mmpt_plugin.criterions.criterion import full_precision
from mmpt_plugin.models.clip import BACKBONE


class BiasGroup(str):
    """The name of a bias's parameter group. With fp16, fairseq's copies of the weights keep no other attribute."""


def mark_biases(module: nn.Module) -> None:
    """Mark every weight whose name contains `bias`; the names of parameter groups, equal as strings, stay the same."""
    for name, weight in module.named_parameters():
        if "bias" in name:
            weight.param_group = BiasGroup(getattr(weight, "param_group", "default"))  # type: ignore[attr-defined]


@dataclass
class BackboneAdamConfig(FairseqAdamConfig):
    """fairseq's Adam, the learning rate of the backbone, and two variants."""

    backbone_lr: float = field(default=1e-7, metadata={"help": "peak learning rate of the pre-trained backbone"})
    no_bias_decay: bool = field(
        default=False, metadata={"help": "exclude weights whose name contains `bias` from weight_decay"}
    )
    no_bias_correction: bool = field(
        default=False, metadata={"help": "do not correct Adam's averages for their start at zero (BERT's Adam)"}
    )


@register_optimizer("adam_with_backbone", dataclass=BackboneAdamConfig)
class BackboneAdam(FairseqAdam):
    """Keeps the ratio of the backbone's learning rate to that of the other weights constant under every schedule.

    fairseq's `composite` optimizer needs one schedule per group, and settings that cannot be given as flags.
    """

    def __init__(self, config: Any, params: Any) -> None:
        groups: dict[tuple[bool, bool], list[Any]] = {
            (backbone, undecayed): [] for backbone in (False, True) for undecayed in (False, True)
        }
        for weight in params:
            name = getattr(weight, "param_group", "default")
            groups[name == BACKBONE, config.no_bias_decay and isinstance(name, BiasGroup)].append(weight)
        if not groups[True, False] + groups[True, True]:
            raise ValueError(
                "optimizer adam_with_backbone found no backbone weights: the model has no trainable ones or, with "
                "common.fp16, needs common.fp16_no_flatten_grads=true"
            )
        scale = config.backbone_lr / config.lr[0]
        made: list[dict[str, Any]] = []
        self.settings: list[dict[str, Any]] = []  # of each group, in this run
        for (backbone, undecayed), weights in groups.items():
            if weights:
                # fairseq's two fused Adams read bias_correction; its Adam in Python has no such setting.
                own = {"lr_scale": scale if backbone else 1.0, "bias_correction": not config.no_bias_correction}
                self.settings.append(own | ({"weight_decay": 0.0} if undecayed else {}))
                made.append({"params": weights, **self.settings[-1]})
        super().__init__(config, made)
        if config.no_bias_correction and isinstance(self.optimizer, Adam):
            self._optimizer = UncorrectedAdam(made, **self.optimizer_config)

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
        """Load fairseq's state, but keep this run's ratio of learning rates, and which weights decay."""
        try:
            super().load_state_dict(state_dict, optimizer_overrides)
        except ValueError as error:
            raise ValueError(
                "the optimizer's state in the checkpoint has other groups of weights: train the same weights with the "
                "same optimizer.no_bias_decay, or start from a new state with checkpoint.reset_optimizer=true"
            ) from error
        for group, own in zip(self.param_groups, self.settings, strict=True):
            group.update(own)


class UncorrectedAdam(Adam):
    """Adam without bias correction, as in BERT's and CLIP4Clip's optimizer; its state is that of fairseq's Adam."""

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        """One update of all weights that have a gradient. Weight decay is decoupled, and proportional to the rate."""
        loss = None if closure is None else closure()
        for group in self.param_groups:
            (beta1, beta2), rate = group["betas"], group["lr"]
            for weight in group["params"]:
                if weight.grad is None:
                    continue
                grad, value, state = full_precision(weight.grad), full_precision(weight), self.state[weight]
                if not state:
                    state.update(step=0, exp_avg=torch.zeros_like(value), exp_avg_sq=torch.zeros_like(value))
                mean, square = state["exp_avg"].to(value), state["exp_avg_sq"].to(value)
                mean.lerp_(grad, 1 - beta1)
                square.mul_(beta2).addcmul_(grad, grad, value=1 - beta2)
                value.mul_(1 - rate * group["weight_decay"])
                value.addcdiv_(mean, square.sqrt().add_(group["eps"]), value=-rate)
                weight.copy_(value)  # `value` is a copy if the weight has half precision
                state.update(step=state["step"] + 1, exp_avg=mean, exp_avg_sq=square)
        return loss


@dataclass
class FusedAdamWConfig(FairseqDataclass):
    """The settings of fairseq's Adam, with its defaults."""

    adam_betas: Any = field(default=(0.9, 0.999), metadata={"help": "decay rates of the two moving averages"})
    adam_eps: float = field(default=1e-8, metadata={"help": "added to the root of the second average"})
    weight_decay: float = field(default=0.0, metadata={"help": "decoupled weight decay, proportional to the rate"})
    lr: list[float] = field(default=II("optimization.lr"))


@register_optimizer("fused_adamw", dataclass=FusedAdamWConfig)
class FusedAdamW(FairseqAdam):
    """torch's AdamW, which updates all weights by one kernel; fairseq's Adam takes about ten for each weight.

    It differs only in `adam_eps`, which torch adds after the correction of the averages for their start at zero, and
    fairseq before. Both load the other's state.
    """

    def __init__(self, config: Any, params: Any) -> None:
        FairseqOptimizer.__init__(self, config)
        self._optimizer = FlatAdamW(params, fused=True, **self.optimizer_config)


class FlatAdamW(torch.optim.AdamW):
    """AdamW whose weights may be one flat tensor in single precision, as fairseq keeps them in half-precision training.

    It does not train weights in half precision themselves (`common.memory_efficient_fp16`).
    """

    supports_flat_params = True
