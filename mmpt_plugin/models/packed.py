"""BERT and CLIP's text tower without padding: the tokens of all rows of a batch, one after the other.

B rows of S positions, N tokens of all rows together, D hidden width, H heads, E width of a head.
"""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
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
    def of(cls, mask: Bool[Tensor, "B S"], places: Int[Tensor, " N"] | None = None) -> "Packing":
        """The packing of a mask. Without `places`, they are found in it, which waits for a GPU."""
        return cls(mask, places_of(mask) if places is None else places)

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
    attend = attention_of(attention, embeddings, causal=False)
    states: Tensor = bert.embeddings.dropout(bert.embeddings.LayerNorm(embeddings))
    for layer in bert.encoder.layer:
        own = layer.attention.self
        heads = (own.num_attention_heads, -1)
        query, key, value = (part(states).unflatten(1, heads) for part in (own.query, own.key, own.value))
        context = attend(query, key, value, packing, own.dropout.p if own.training else 0.0)
        states = layer.attention.output(context.flatten(1), states)
        states = layer.output(layer.intermediate(states), states)
    return states


def encode_packed_causally(
    encoder: Any, embeddings: Float[Tensor, "N D"], packing: Packing, *, attention: str
) -> Float[Tensor, "N D"]:
    """As `encode_packed`, for transformers' `CLIPEncoder`; a token attends to itself and the tokens before it."""
    attend, states = attention_of(attention, embeddings, causal=True), embeddings
    for layer in encoder.layers:
        own, normed = layer.self_attn, layer.layer_norm1(states)
        heads = (own.num_heads, -1)
        query, key, value = (part(normed).unflatten(1, heads) for part in (own.q_proj, own.k_proj, own.v_proj))
        context = attend(query, key, value, packing, own.dropout if own.training else 0.0)
        states = states + own.out_proj(context.flatten(1))
        states = states + layer.mlp(layer.layer_norm2(states))
    return states


def padded_attention(
    query: Heads, key: Heads, value: Heads, packing: Packing, dropout: float, *, causal: bool
) -> Heads:
    """Attention with every row padded to S."""
    q, k, v = (packing.pad(part).transpose(1, 2) for part in (query, key, value))  # (B, H, S, E)
    mask = packing.mask[:, None, None, :]
    if causal:
        size = mask.shape[-1]
        earlier = torch.ones(size, size, dtype=torch.bool, device=mask.device).tril()
        mask = mask & earlier | torch.eye(size, dtype=torch.bool, device=mask.device)  # a row of no True is NaN
    # torch's own kernel takes 1.3 to 2.3 times as long on a CPU in bfloat16
    by_products = q.device.type == "cpu" and q.dtype == torch.bfloat16
    attend = attention_by_products if by_products else F.scaled_dot_product_attention
    return packing.pack(attend(q, k, v, attn_mask=mask, dropout_p=dropout).transpose(1, 2))


def attention_by_products(
    query: Float[Tensor, "B H S E"],
    key: Float[Tensor, "B H S E"],
    value: Float[Tensor, "B H S E"],
    *,
    attn_mask: Bool[Tensor, "B 1 _ S"],
    dropout_p: float,
) -> Float[Tensor, "B H S E"]:
    """`scaled_dot_product_attention`, computed by two matrix products with all attention weights in memory."""
    scores = query * query.shape[-1] ** -0.5 @ key.transpose(-1, -2)
    weights = scores.masked_fill_(~attn_mask, -torch.inf).softmax(dim=-1)
    return F.dropout(weights, dropout_p) @ value


def jagged_attention(
    query: Heads, key: Heads, value: Heads, packing: Packing, dropout: float, *, causal: bool
) -> Heads:
    """Attention by the kernels that take rows of different lengths without padding: flash or memory-efficient ones."""
    ends = F.pad(packing.mask.sum(dim=1).cumsum(dim=0), (1, 0))
    longest = packing.mask.shape[1]
    q, k, v = (
        torch.nested.nested_tensor_from_jagged(part, ends, min_seqlen=1, max_seqlen=longest).transpose(1, 2)
        for part in (query, key, value)
    )
    attended: Tensor = F.scaled_dot_product_attention(q, k, v, dropout_p=dropout, is_causal=causal).transpose(1, 2)
    return attended.values()


Attention = Callable[[Tensor, Tensor, Tensor, Packing, float], Tensor]

ATTENTION: dict[str, Callable[..., Tensor]] = {"padded": padded_attention, "jagged": jagged_attention}


def check_attention(kind: str) -> None:
    """ValueError for an unknown `model.attention`."""
    if kind not in ("auto", *ATTENTION):
        raise ValueError(f"model.attention must be auto, {' or '.join(ATTENTION)}, got {kind}")


def attention_of(kind: str, states: Float[Tensor, "N D"], *, causal: bool) -> Attention:
    """The attention of a kind; "auto" is the one chosen for the device and data type of the states.

    torch has no kernel for causal attention that is jagged on a CPU, so it is padded there.
    """
    device = str(states.device)
    if kind == "auto" or (causal and device == "cpu"):
        kind = chosen(device, states.dtype, causal)
    return partial(ATTENTION[kind], causal=causal)


@torch.compiler.assume_constant_result  # type: ignore[untyped-decorator]
def chosen(device: str, dtype: torch.dtype, causal: bool = False) -> str:
    """The kind of attention for a device: padded on a CPU, and where jagged attention does not give the same."""
    return best_on(device, dtype, causal)


@cache
def best_on(device: str, dtype: torch.dtype, causal: bool) -> str:
    """`chosen`, found once."""
    if device == "cpu":
        return "padded"
    problem, name = difference(device, dtype, causal), "causal attention" if causal else "attention"
    logger.info("%s on %s in %s: %s", name, device, dtype, f"padded, {problem}" if problem else "jagged")
    return "padded" if problem else "jagged"


def difference(device: str, dtype: torch.dtype, causal: bool = False) -> str | None:
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
                out = attend(*leaves, there, 0.0, causal=causal)
                results.append([out, *torch.autograd.grad(out.float().square().sum(), leaves)])
        except RuntimeError as error:
            return first_line(error)
    worst = max(float(((a - b).abs().max() / a.abs().max()).detach()) for a, b in zip(*results, strict=True))
    return None if worst < TOLERANCE else f"the two differ by {worst:.1e}"
