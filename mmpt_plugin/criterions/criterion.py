"""What all losses share: full precision, whatever the model computes in."""

from abc import abstractmethod
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn

from mmpt_plugin.distributed import all_gather, check_equal_rows, world_size


class Criterion(nn.Module):
    """A loss on what a model makes of a batch, computed in float32 or wider, under autocast too.

    In training the batch is that of all ranks. In eval mode each rank's is its own: a validation loss does not depend
    on the number of ranks. Learned numbers have shape (1,), since data-parallel wrappers slice parameters.
    """

    batch_fields: tuple[str, ...] = ()
    """What else of the batch `compute` takes, as keywords."""
    gathers: bool = True
    """Whether it compares the pairs of all ranks, of which every rank must then hold equally many."""
    expects_unit_vectors: bool = False
    """Whether the loss is defined on cosines: then training refuses a model whose vectors have other lengths."""

    def forward(self, *outputs: Tensor, **named: Tensor) -> Tensor:
        """A mean over this rank's pairs, seconds or steps, in nats."""
        loss, _ = self.with_metrics(*outputs, **named)
        return loss

    def with_metrics(self, *outputs: Tensor, **named: Tensor) -> tuple[Tensor, dict[str, float]]:
        """The loss, and what to log with it."""
        if self.num_ranks > 1 and self.gathers:
            check_equal_rows(outputs[0])
        with torch.autocast(outputs[0].device.type, enabled=False):
            return self.compute(*map(full_precision, outputs), **named)

    @property
    def num_ranks(self) -> int:
        """Over whose pairs the loss is."""
        return world_size() if self.training else 1

    def all_pairs(self, rows: Tensor) -> Tensor:
        """The rows of all these ranks."""
        return all_gather(rows) if self.num_ranks > 1 else rows

    def mean(self, total: Tensor, count: Tensor) -> Tensor:
        """This rank's share of a mean over all ranks' seconds or steps; the ranks' shares average to that mean.

        The ranks may hold unequal numbers of them.
        """
        counts = count.clone()
        if self.num_ranks > 1:
            dist.all_reduce(counts)
        return total * self.num_ranks / counts

    @abstractmethod
    def compute(self, *outputs: Any, **named: Any) -> tuple[Tensor, dict[str, float]]:
        """`with_metrics` of tensors in full precision."""

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *others: Any) -> None:
        """Learned numbers of earlier checkpoints have no dimension."""
        for name, own in self.named_parameters(recurse=False):
            saved = state_dict.get(prefix + name)
            if saved is not None and saved.ndim == 0:
                state_dict[prefix + name] = saved.view(own.shape)
        super()._load_from_state_dict(state_dict, prefix, *others)


def full_precision(tensor: Tensor) -> Tensor:
    """Floats in float32 or wider; whole numbers as they are."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32)) if tensor.is_floating_point() else tensor
