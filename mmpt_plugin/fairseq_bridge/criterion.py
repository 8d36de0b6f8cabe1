"""A registered criterion as fairseq's trainer wants it."""

from collections.abc import Callable
from typing import Any

import torch
from fairseq.criterions import FairseqCriterion, register_criterion
from fairseq.logging import metrics
from torch import Tensor

from mmpt_plugin.fairseq_bridge import preemption
from mmpt_plugin.fairseq_bridge.dataclass import core_config, fairseq_dataclass
from mmpt_plugin.registry import Entry


class FairseqCriterionAdapter(FairseqCriterion):
    """Calls a core criterion on what the model makes of a batch; logs its loss and, where there are some, metrics."""

    entry: Entry[Any]

    def __init__(self, config: Any, task: Any) -> None:
        super().__init__(task)
        self.criterion = self.entry.build(core_config(self.entry, config))

    @classmethod
    def build_criterion(cls, config: Any, task: Any) -> "FairseqCriterionAdapter":
        return cls(config, task)

    def forward(self, model: Any, sample: dict[str, Tensor], reduce: bool = True) -> tuple[Any, int, Any]:
        """The loss is a mean over pairs already, so that the sample size, which divides it, is 1."""
        self.check(model)
        outputs = model(**sample)
        named = {name: sample[name] for name in getattr(self.criterion, "batch_fields", ())}
        if hasattr(self.criterion, "with_metrics"):
            loss, values = self.criterion.with_metrics(*outputs, **named)
        else:
            loss, values = self.criterion(*outputs, **named), {}
        pairs = len(outputs[0])
        log = {"loss": float(loss.detach()), "pairs": pairs, "steps": 1, **values}
        preemption.add_to(log)
        # fairseq's own names for throughput: a sentence is a pair, a token a second of video or a word piece.
        log["nsentences"] = pairs
        log["ntokens"] = sum(int(tensor.sum()) for name, tensor in sample.items() if name.endswith("_mask"))
        return loss, 1, log

    def _apply(self, move: Callable[[Tensor], Tensor], recurse: bool = True) -> Any:
        """Moves between devices, but never to half precision: a temperature has too few digits there, and fairseq's
        optimizer keeps a full copy of whatever it is given."""

        def moved(tensor: Tensor) -> Tensor:
            result = move(tensor)
            halved = result.dtype in (torch.float16, torch.bfloat16)
            return tensor.to(result.device) if halved else result

        return super()._apply(moved, recurse)

    def check(self, model: Any) -> None:
        """ValueError for a loss on cosines with a model whose vectors have other lengths than 1."""
        core = getattr(getattr(model, "module", model), "model", None)  # within fairseq's data-parallel wrapper, or not
        if getattr(self.criterion, "expects_unit_vectors", False) and getattr(core, "unit_vectors", None) is False:
            raise ValueError(f"criterion '{self.entry.name}' compares vectors of unit length: set model.normalize=true")

    @classmethod
    def reduce_metrics(cls, logging_outputs: list[dict[str, Any]]) -> None:
        """Plain floats: a NumPy value would not come back from a checkpoint read with weights_only."""
        steps = sum(log.get("steps", 0) for log in logging_outputs)
        for name in logging_outputs[0].keys() - {"steps", "pairs", "nsentences", "ntokens", preemption.LOG_KEY}:
            mean = sum(float(log.get(name, 0.0)) for log in logging_outputs) / max(steps, 1)
            metrics.log_scalar(name, mean, weight=steps, round=4, priority=10)

    @staticmethod
    def logging_outputs_can_be_summed() -> bool:
        return True


def mirror_criterion(entry: Entry[Any]) -> None:
    adapter = type(f"Fairseq{entry.cls.__name__}", (FairseqCriterionAdapter,), {"entry": entry})
    config = fairseq_dataclass(entry, f"{adapter.__name__}Config")
    register_criterion(entry.name, dataclass=config)(adapter)
