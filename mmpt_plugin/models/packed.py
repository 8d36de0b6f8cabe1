"""BERT without padding: the tokens of all rows of a batch, one after the other.

B rows of S positions, N tokens of all rows together, D hidden width, H heads, E width of a head.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, Shaped
from torch import Tensor

from mmpt_plugin.batch import places_of
from mmpt_plugin.errors import first_line

logger = logging.getLogger(__name__)

Heads = Float[Tensor, "N H E"]
TOLERANCE = 2e-2  # relative difference of two kinds of attention in half precision


@dataclass(frozen=True)
class Packing:
    """Which positions of B rows hold tokens."""

    mask: Bool[Tensor, "B S"]
    """True where there is a token."""
    places: Int[Tensor, " N"]
    """The positions of the tokens in the flattened (B x S) rows, ascending."""

    @classmethod
    def of(cls, mask: Bool[Tensor, "B S"]) -> "Packing":
        """The packing of a mask; on a GPU, finding the places waits for it."""
        return cls(mask, places_of(mask))

    @property
    def rows(self) -> Int[Tensor, " N"]:
        """The row of each token."""
        return self.places // self.mask.shape[1]

    @property
    def positions(self) -> Int[Tensor, " N"]:
        """The position of each token in its row."""
        return self.places % self.mask.shape[1]

    def pack(self, padded: Shaped[Tensor, "B S *rest"]) -> Shaped[Tensor, "N *rest"]:
        """The values of the tokens."""
        return padded.flatten(0, 1).index_select(0, self.places)

    def pad(self, packed: Shaped[Tensor, "N *rest"]) -> Shaped[Tensor, "B S *rest"]:
        """The values of the tokens in their rows, zeros elsewhere."""
        size, steps = self.mask.shape
        flat = packed.new_zeros(size * steps, *packed.shape[1:]).index_copy(0, self.places, packed)
        return flat.view(size, steps, *packed.shape[1:])


def encode_packed(
    bert: Any, embeddings: Float[Tensor, "N D"], packing: Packing, *, attention: str
) -> Float[Tensor, "N D"]:
    """The last hidden states of the tokens, from the sum of their embeddings, through the layers of a `BertModel`.

    Tokens attend to all tokens of their row. Only the attention may pad rows; everything else is computed per token.
    """
    heads = bert.config.num_attention_heads
    kind = chosen(str(embeddings.device), embeddings.dtype) if attention == "auto" else attention
    states: Tensor = bert.embeddings.dropout(bert.embeddings.LayerNorm(embeddings))
    for layer in bert.encoder.layer:
        own = layer.attention.self
        query, key, value = (part(states).unflatten(1, (heads, -1)) for part in (own.query, own.key, own.value))
        context = ATTENTION[kind](query, key, value, packing, own.dropout.p if own.training else 0.0)
        states = layer.attention.output(context.flatten(1), states)
        states = layer.output(layer.intermediate(states), states)
    return states


def padded_attention(query: Heads, key: Heads, value: Heads, packing: Packing, dropout: float) -> Heads:
    """Attention with every row padded to S."""
    q, k, v = (packing.pad(part).transpose(1, 2) for part in (query, key, value))  # (B, H, S, E)
    mask = packing.mask[:, None, None, :]
    return packing.pack(F.scaled_dot_product_attention(q, k, v, attn_mask=mask, dropout_p=dropout).transpose(1, 2))


def jagged_attention(query: Heads, key: Heads, value: Heads, packing: Packing, dropout: float) -> Heads:
    """Attention by the kernels that take rows of different lengths without padding: flash or memory-efficient ones."""
    ends = F.pad(packing.mask.sum(dim=1).cumsum(dim=0), (1, 0))
    longest = packing.mask.shape[1]
    q, k, v = (
        torch.nested.nested_tensor_from_jagged(part, ends, min_seqlen=1, max_seqlen=longest).transpose(1, 2)
        for part in (query, key, value)
    )
    attended: Tensor = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout).transpose(1, 2)
    return attended.values()


ATTENTION: dict[str, Callable[[Tensor, Tensor, Tensor, Packing, float], Tensor]] = {
    "padded": padded_attention,
    "jagged": jagged_attention,
}


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def chosen(device: str, dtype: torch.dtype) -> str:
    """The kind of attention for a device: padded on a CPU, and where jagged attention does not give the same."""
    return best_on(device, dtype)


@cache
def best_on(device: str, dtype: torch.dtype) -> str:
    """`chosen`, found once."""
    if device == "cpu":
        return "padded"
    problem = difference(device, dtype)
    logger.info("attention on %s in %s: %s", device, dtype, f"padded, {problem}" if problem else "jagged")
    return "padded" if problem else "jagged"


def difference(device: str, dtype: torch.dtype) -> str | None:
    """Why a device can't use jagged attention; None if its outputs and gradients are those of padded attention."""
    made = torch.Generator().manual_seed(0)
    packing = Packing.of(torch.arange(40) < torch.tensor([40, 3, 17])[:, None])
    parts = torch.randn(3, len(packing.places), 2, 64, generator=made)
    there = Packing(packing.mask.to(device), packing.places.to(device))
    results = []
    for attend in ATTENTION.values():
        leaves = [part.to(device, dtype).requires_grad_() for part in parts]
        try:
            with torch.enable_grad():
                out = attend(leaves[0], leaves[1], leaves[2], there, 0.0)
                results.append([out, *torch.autograd.grad(out.float().square().sum(), leaves)])
        except RuntimeError as error:
            return first_line(error)
    worst = max(float(((a - b).abs().max() / a.abs().max()).detach()) for a, b in zip(*results, strict=True))
    return None if worst < TOLERANCE else f"the two differ by {worst:.1e}"
