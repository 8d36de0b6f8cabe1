"""Rank, world size and collectives, with and without gradients; in one process, collectives return their input."""

from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
import torch.distributed as dist
from jaxtyping import Float, Int
from torch import Tensor
from torch.autograd.function import FunctionCtx

T = TypeVar("T")


def world_size() -> int:
    """The number of processes; 1 without an initialized process group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """This process's number, from 0; 0 without an initialized process group."""
    return dist.get_rank() if dist.is_available() and dist.is_initialized() else 0


def all_gather(tensor: Float[Tensor, "B D"]) -> Float[Tensor, "N D"]:
    """The rows of all ranks, in rank order; all ranks must have the same number of rows.

    The gradient of a row, summed over all ranks, flows back to the rank that the row is from.
    """
    if world_size() == 1:
        return tensor
    gathered: Tensor = _AllGather.apply(tensor)  # type: ignore[no-untyped-call]
    return gathered


@torch.no_grad()
def gather_ids(ids: Int[Tensor, " B"]) -> Int[Tensor, " N"]:
    """The ids of all ranks, in rank order; all ranks must have the same number of ids."""
    if world_size() == 1:
        return ids
    rows = [torch.empty_like(ids) for _ in range(world_size())]
    dist.all_gather(rows, ids.contiguous())
    return torch.cat(rows)


def from_previous_rank(tensor: Float[Tensor, "B D"]) -> Float[Tensor, "B D"]:
    """The rows of the previous rank in the ring of ranks; this rank's rows are sent to the next rank.

    Gradients are sent in the opposite direction. All ranks must have the same number of rows.
    """
    received: Tensor = _FromPreviousRank.apply(tensor)  # type: ignore[no-untyped-call]
    return received


def from_rank_0(make: Callable[[], T]) -> T:
    """Call `make` on rank 0 only, and return its result on all ranks; if it raises ValueError, all ranks raise it."""
    if world_size() == 1:
        return make()
    box: list[Any] = [None]
    if rank() == 0:
        try:
            box = [make()]
        except ValueError as error:
            box = [error]
    dist.broadcast_object_list(box, src=0)
    if isinstance(box[0], ValueError):
        raise box[0]
    made: T = box[0]
    return made


def check_equal_rows(tensor: Float[Tensor, "B D"], *, expected: int | None = None) -> None:
    """ValueError if the ranks hold different numbers of rows, for which a gather would wait forever or abort.

    Without `expected`, all ranks compare their numbers and raise it; with it, only those that hold another number do.
    """
    if world_size() == 1:
        return
    rule = "all ranks must have the same number of pairs in a batch"
    if expected is not None:
        if len(tensor) != expected:
            raise ValueError(f"rank {rank()} holds {len(tensor)} pairs, but {expected} in the batches before: {rule}")
        return
    mine = torch.tensor([len(tensor)], device=tensor.device)
    counts = [int(count) for count in gather_ids(mine)]
    if len(set(counts)) > 1:
        raise ValueError(f"the ranks hold {counts} pairs: {rule}")


def gather_arrays(array: np.ndarray) -> np.ndarray:
    """The arrays of all ranks, stacked in rank order; they must have the same shape and type."""
    if world_size() == 1:
        return array[None]
    mine = torch.from_numpy(np.ascontiguousarray(array)).to("cuda" if dist.get_backend() == "nccl" else "cpu")
    arrays = [torch.empty_like(mine) for _ in range(world_size())]
    dist.all_gather(arrays, mine)
    stacked: np.ndarray = torch.stack(arrays).cpu().numpy()
    return stacked


class _AllGather(torch.autograd.Function):
    """Forward: all_gather. Backward: the sum over ranks of the gradients of this rank's rows.

    Uses all_reduce instead of reduce_scatter, because gloo has no reduce_scatter, and B x D is small.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        rows = [torch.empty_like(tensor) for _ in range(world_size())]
        dist.all_gather(rows, tensor.contiguous())
        return torch.cat(rows)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        (grad,) = grads
        total = grad.contiguous().clone()
        dist.all_reduce(total)
        return total.chunk(world_size())[rank()]


class _FromPreviousRank(torch.autograd.Function):
    @staticmethod
    def forward(ctx: FunctionCtx, tensor: Tensor) -> Tensor:
        return exchange(tensor, by=1)

    @staticmethod
    def backward(ctx: FunctionCtx, *grads: Tensor) -> Tensor:
        return exchange(grads[0], by=-1)


def exchange(tensor: Tensor, *, by: int) -> Tensor:
    """Send to rank + by and receive from rank - by, modulo the world size."""
    received = torch.empty_like(tensor, memory_format=torch.contiguous_format)
    sent = dist.P2POp(dist.isend, tensor.contiguous(), (rank() + by) % world_size())
    awaited = dist.P2POp(dist.irecv, received, (rank() - by) % world_size())
    for request in dist.batch_isend_irecv([sent, awaited]):
        request.wait()
    return received
