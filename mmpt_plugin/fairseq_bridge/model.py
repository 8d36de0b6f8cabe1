"""Adapts registered models to fairseq's trainer."""

from typing import Any

from fairseq.models import BaseFairseqModel, register_model
from torch import Tensor

from mmpt_plugin.batch import Batch
from mmpt_plugin.fairseq_bridge.dataclass import core_config, fairseq_dataclass
from mmpt_plugin.fairseq_bridge.optimizer import mark_biases
from mmpt_plugin.registry import Entry


class FairseqModelAdapter(BaseFairseqModel):
    """Holds a registered model as `.model`, so its weights have the prefix `model.` in a checkpoint."""

    entry: Entry[Any]

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model
        mark_biases(model)
        self.num_updates = 0

    @classmethod
    def build_model(cls, config: Any, task: Any) -> "FairseqModelAdapter":
        """See `BaseFairseqModel.build_model`."""
        return cls(cls.entry.build(core_config(cls.entry, config)))

    def forward(self, **sample: Tensor) -> Any:
        """`sample` is a dict with a batch's tensors: trainers can move and convert dicts, but not batch objects."""
        return self.model(getattr(self.model, "batch_type", Batch)(**sample))

    def set_num_updates(self, num_updates: int) -> None:
        """Store the count, by which the task measures a benchmark once per validation."""
        super().set_num_updates(num_updates)
        self.num_updates = num_updates


def mirror_model(entry: Entry[Any]) -> None:
    """Register a model with fairseq, under the same name."""
    adapter = type(f"Fairseq{entry.cls.__name__}", (FairseqModelAdapter,), {"entry": entry})
    config = fairseq_dataclass(entry, f"{adapter.__name__}Config")
    register_model(entry.name, dataclass=config)(adapter)
