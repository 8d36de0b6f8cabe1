"""Adapts registered criterions to fairseq's trainer."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from torch import Tensor

from mmpt_plugin.criterions import Criterion
from mmpt_plugin.fairseq_bridge import preemption
from mmpt_plugin.fairseq_bridge.dataclass import core_config, fairseq_dataclass
from mmpt_plugin.fairseq_bridge.optimizer import mark_biases
from mmpt_plugin.registry import Entry


class FairseqCriterionAdapter(FairseqCriterion):
    """Calls a registered criterion on the model's outputs; logs its loss and any metrics."""

    entry: Entry[Any]

    def __init__(self, config: Any, task: Any) -> None:
        super().__init__(task)
        self.criterion = self.entry.build(core_config(self.entry, config))
        mark_biases(self.criterion)

    @classmethod
    def build_criterion(cls, config: Any, task: Any) -> "FairseqCriterionAdapter":
        """See `FairseqCriterion.build_criterion`."""
        return cls(config, task)

    def forward(self, model: Any, sample: dict[str, Tensor], reduce: bool = True) -> tuple[Any, int, Any]:
        """The loss is already a mean over pairs, so the sample size that fairseq divides by is 1."""
        self.check(model)
        outputs = model(**sample)
        named = {name: sample[name] for name in getattr(self.criterion, "batch_fields", ())}
        if hasattr(self.criterion, "with_metrics"):
            loss, values = self.criterion.with_metrics(*outputs, **named)
        else:
            loss, values = self.criterion(*outputs, **named), {}
        pairs = len(outputs[0])
        if self.training:
            self.expect_pairs(pairs)  # in all further steps of the epoch, see `ClusterDataset.batch_by_size`
        # Tensors, which `reduce_metrics` reads at the end of the step: here the trainer would wait for the GPU.
        log = {"loss": loss.detach(), "pairs": pairs, "steps": 1, **values}
        preemption.add_to(log)
        # fairseq's names for throughput: a sentence is a pair, a token is a second of video or a word piece.
        log["nsentences"] = pairs
        log["ntokens"] = num_tokens(sample)
        return loss, 1, log

    def expect_pairs(self, pairs: int | None) -> None:
        """How many pairs the batches of all ranks have, which the ranks compare in the first step of an epoch."""
        if isinstance(self.criterion, Criterion):
            self.criterion.num_pairs = pairs

    def _apply(self, move: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Move between devices, but never to half precision.

        A temperature needs more precision, and fairseq's optimizer keeps its own full-precision copy of parameters.
        """

        def moved(tensor: Tensor) -> Tensor:
            result = move(tensor)
            halved = result.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(result.device) if halved else result

        return super()._apply(moved, recurse)

    def check(self, model: Any) -> None:
        """ValueError for a loss on cosines with a model that does not return unit vectors."""
        core = getattr(getattr(model, "module", model), "model", None)  # unwrapped, if fairseq wraps it
        if getattr(self.criterion, "expects_unit_vectors", False) and getattr(core, "unit_vectors", None) is False:
            raise ValueError(f"criterion '{self.entry.name}' needs unit vectors: set model.normalize=true")

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Log plain floats: a NumPy value in a checkpoint could not be loaded with weights_only."""
        steps = sum(log.get("steps", 0) for log in logging_outputs)
        for name in logging_outputs[0].keys() - {"steps", "pairs", "nsentences", "ntokens", preemption.LOG_KEY}:
            mean = sum(float(log.get(name, 0.0)) for log in logging_outputs) / max(steps, 1)
            metrics.log_scalar(name, mean, weight=steps, round=4, priority=10)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        """True, so that fairseq sums the outputs of all ranks in one all-reduce."""
        return True


def num_tokens(sample: Mapping[str, Tensor | None]) -> int | Tensor:
    """How many positions of a batch are not padding; a tensor, on the batch's device, without the places of a mask."""
    total: int | Tensor = 0
    for name, mask in sample.items():
        if name.endswith("_mask") and mask is not None:
            places = sample.get(f"{name.removesuffix('mask')}places")
            total += mask.sum() if places is None else len(places)
    return total


def mirror_criterion(entry: Entry[Any]) -> None:
    """Register a criterion with fairseq, under the same name."""
    adapter = type(f"Fairseq{entry.cls.__name__}", (FairseqCriterionAdapter,), {"entry": entry})
    config = fairseq_dataclass(entry, f"{adapter.__name__}Config")
    register_criterion(entry.name, dataclass=config)(adapter)
