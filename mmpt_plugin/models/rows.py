"""How a tower encodes the rows of a batch: compiled if wanted; many rows on a CPU in groups of similar length.

B rows of S positions, N tokens of all rows together, D hidden width.
"""

import copy
from collections.abc import Callable
from functools import cache
from typing import Any, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers.activations import GELUActivation
from transformers.models.bert.modeling_bert import BertIntermediate

from mmpt_plugin.batch import places_of
from mmpt_plugin.errors import first_line

CPU_ROWS = 64  # rows encoded at a time on a CPU: more don't fit its caches

M = TypeVar("M", bound=nn.Module)


def encode_rows(
    tower: Any, rows: Tensor, mask: Bool[Tensor, "B S"], places: Int[Tensor, " N"] | None
) -> Float[Tensor, "B D"]:
    """The vectors that a tower's `_encode(rows, mask, places)` returns, compiled if the tower is `compiled`.

    On a CPU, groups of rows of similar length are encoded one after the other, without the padding they share.
    """
    if rows.device.type != "cpu" or len(rows) <= CPU_ROWS:
        encode = compiled(tower._encode) if tower.compiled else tower._encode
        vectors: Tensor = encode(rows, mask, places_of(mask) if places is None else places)
        return vectors
    return by_groups(compiled(tower._encode) if tower.compiled else reordered(tower)._encode, rows, mask)


def by_groups(
    encode: Callable[[Tensor, Tensor, Tensor], Tensor], rows: Tensor, mask: Bool[Tensor, "B S"]
) -> Float[Tensor, "B D"]:
    """`encode(rows, mask, places)` of each of the `groups`, in the order of the rows."""
    parts = groups(mask)
    masks = [mask[some, :end] for some, end in parts]
    encoded = torch.cat([
        encode(rows[some, :end], seen, places_of(seen)) for (some, end), seen in zip(parts, masks, strict=True)
    ])  # fmt: skip
    return torch.empty_like(encoded).index_copy(0, torch.cat([some for some, _ in parts]), encoded)


def groups(mask: Bool[Tensor, "B S"]) -> list[tuple[Int[Tensor, " N"], int]]:
    """Up to CPU_ROWS rows of similar length, and where the longest of them ends."""
    lengths = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).amax(dim=1).clamp(min=1)
    return [(some, int(lengths[some[-1]])) for some in torch.split(lengths.argsort(), CPU_ROWS)]


class ReorderedLinear(nn.Module):
    """A linear layer for inference whose weight is in the order that oneDNN's product reads; GELU may follow."""

    def __init__(self, weight: Float[Tensor, "_ _"], bias: Float[Tensor, " _"] | None, *, gelu: bool = False) -> None:
        super().__init__()
        self.weight, self.bias, self.gelu = weight, bias, gelu
        self.reordered = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)

    def forward(self, states: Float[Tensor, "*B _"]) -> Float[Tensor, "*B _"]:
        """The product and the bias, then GELU."""
        then: tuple[str, list[float], str] = ("gelu", [], "none") if self.gelu else ("none", [], "")
        product: Tensor = torch.ops.mkldnn._linear_pointwise(states, self.reordered, self.bias, *then)
        return product


def reordered(module: M) -> M:
    """A copy for inference that shares the module's weights, but has its linear layers' `ReorderedLinear`.

    The module itself where gradients, autocasting, a compiler or hooks need it, or where torch has no such product.
    """
    if torch.is_grad_enabled() or torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling():
        return module
    hooked = any(part._forward_hooks or part._forward_pre_hooks for part in module.modules())
    if hooked or not can_reorder(next(module.parameters()).dtype):
        return module
    shared = {id(tensor): tensor for tensor in (*module.parameters(), *module.buffers())}
    copied = copy.deepcopy(module, shared)
    for part in copied.modules():
        for name, child in part.named_children():
            gelu = type(child) is BertIntermediate and type(child.intermediate_act_fn) is GELUActivation
            linear = child.dense if gelu else child
            if type(linear) is nn.Linear:  # not a subclass, which may compute something else
                setattr(part, name, ReorderedLinear(linear.weight, linear.bias, gelu=gelu))
    return copied


@cache
def can_reorder(dtype: torch.dtype) -> bool:
    """Whether torch has oneDNN's product for this data type, and it gives the same."""
    weight, ones = torch.arange(64).to(dtype).view(8, 8) / 64, torch.ones(2, 8, dtype=dtype)
    try:
        return torch.allclose(ReorderedLinear(weight, None, gelu=True)(ones), F.gelu(ones @ weight.T), rtol=1e-2)
    except (AttributeError, RuntimeError):
        return False


def compiled(method: Any) -> Callable[..., Tensor]:
    """A method of a module, compiled by torch once for batches of all sizes; ValueError if that fails."""
    from torch._dynamo.exc import TorchDynamoException

    def run(*arguments: Tensor) -> Tensor:
        try:
            return compiled_function(method.__func__)(method.__self__, *arguments)
        except TorchDynamoException as error:
            raise ValueError(f"model.compile: {first_line(error)}") from error

    return run


@cache
def compiled_function(function: Callable[..., Tensor]) -> Callable[..., Tensor]:
    """`function` of a class, compiled for all its objects."""
    made: Callable[..., Tensor] = torch.compile(function, fullgraph=True, dynamic=True)
    return made
