"""Base class of the losses: computed in full precision, whatever precision the model uses."""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmpt_plugin.distributed import all_gather, check_equal_rows, world_size


class Criterion(nn.Module):
    """A loss on the outputs of a model, computed in float32 or wider, also under autocast.

    In training, the loss is over the batches of all ranks. In eval mode, each rank uses only its own batch, so the
    validation loss does not depend on the number of ranks. Learned scalars have shape (1,), because data-parallel
    wrappers slice parameters.
    """

    batch_fields: tuple[str, ...] = ()
    """Further fields of the batch that are passed to `compute` as keyword arguments."""
    gathers: bool = True
    """Whether the loss compares the pairs of all ranks; every rank must then hold the same number of pairs."""
    expects_unit_vectors: bool = False
    """Whether the loss is defined on cosines; training then rejects a model that does not return unit vectors."""
    num_pairs: int | None = None
    """The number of pairs that every rank holds in every batch, where a trainer guarantees one. None compares the
    numbers of all ranks in each training step, which waits for the GPU."""

    def forward(self, *outputs: Tensor, **named: Tensor) -> Tensor:
        """The mean loss over this rank's pairs, seconds or steps, in nats."""
        loss, _ = self.with_metrics(*outputs, **named)
        return loss

    def with_metrics(self, *outputs: Tensor, **named: Tensor) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """The loss, and the metrics to log with it; ValueError if the ranks hold different numbers of pairs."""
        if self.num_ranks > 1 and self.gathers:
            check_equal_rows(outputs[0], expected=self.num_pairs)
        with torch.autocast(outputs[0].device.type, enabled=False):
            return self.compute(*map(full_precision, outputs), **named)

    @property
    def num_ranks(self) -> int:
        """The number of ranks whose pairs the loss covers."""
        return world_size() if self.training else 1

    def all_pairs(self, rows: Tensor) -> Tensor:
        """The rows of all `num_ranks` ranks."""
        return all_gather(rows) if self.num_ranks > 1 else rows

    def mean(self, total: Tensor, count: Tensor) -> Tensor:
        """This rank's contribution to the mean over the seconds or steps of all ranks.

        The average of the contributions over ranks is that mean. Ranks may hold different numbers of items.
        """
        counts = count.clone()
        if self.num_ranks > 1:
            dist.all_reduce(counts)
        return total * self.num_ranks / counts

    @abstractmethod
    def compute(self, *outputs: Any, **named: Any) -> tuple[Tensor, Mapping[str, Tensor | float]]:
        """`with_metrics` for tensors in full precision."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Load learned scalars of earlier checkpoints, which have no dimension, as shape (1,)."""
        for name, own in self.named_parameters(recurse=False):
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.ndim == 0:
                state_dict[prefix + name] = saved.view(own.shape)
        super()._load_from_state_dict(state_dict, prefix, *others)


def full_precision(tensor: Tensor) -> Tensor:
    """Floating-point tensors in float32 or wider; integer tensors unchanged."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if tensor.is_floating_point() else tensor
