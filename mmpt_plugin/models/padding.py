"""Padded rows and their masks, for all models. B rows, S positions, L text tokens, E output width."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def full_mask(rows: Tensor, mask: Tensor | None) -> Tensor:
    """The mask (B, S); if it is None, a mask that is True everywhere."""
    return torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device) if mask is None else mask


def chunked(
    encode: Callable[[Tensor, Tensor], Tensor], rows: Tensor, mask: Bool[Tensor, "B S"], *, size: int
) -> Float[Tensor, "B E"]:
    """`encode(rows, mask)`, `size` rows at a time; the backward pass recomputes each chunk's activations.

    GradCache (Gao et al., 2021): gradients equal those of the whole batch, including dropout, but only one chunk's
    activations are in memory.
    """
    if size == 0 or len(rows) <= size:
        return encode(rows, mask)
    parts = zip(torch.split(rows, size), torch.split(mask, size), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([encode(*part) for part in parts])
    return torch.cat([checkpoint(encode, *part, use_reentrant=False) for part in parts])


def cut_text(
    ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"], *, length: int
) -> tuple[Int[Tensor, "B _"], Bool[Tensor, "B _"]]:
    """At most `length` tokens per text; a text that is cut keeps its last token."""
    if ids.shape[1] <= length:
        return ids, mask
    last = last_token(mask)
    ends = ids.gather(1, last[:, None]).squeeze(1)
    kept = ids[:, :length].clone()
    kept[:, -1] = torch.where(last >= length, ends, kept[:, -1])
    return kept, mask[:, :length]


def last_token(mask: Bool[Tensor, "B L"]) -> Int[Tensor, " B"]:
    """The index of the last real token."""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).amax(dim=1)
