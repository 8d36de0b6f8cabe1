"""Padded rows and their masks, for all models. B rows, S positions, L text tokens, E output width."""

from collections.abc import Callable

import torch
from jaxtyping import Bool, Float
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def full_mask(rows: Tensor, mask: Tensor | None) -> Tensor:
    """The mask (B, S); if it is None, a mask that is True everywhere."""
    return torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device) if mask is None else mask


def chunked(
    encode: Callable[..., Tensor], rows: Tensor, mask: Bool[Tensor, "B S"], *, size: int, **whole: Tensor
) -> Float[Tensor, "B E"]:
    """`encode(rows, mask)`, `size` rows at a time; the backward pass recomputes each chunk's activations.

    GradCache (Gao et al., 2021): gradients equal those of the whole batch, including dropout, but only one chunk's
    activations are in memory. `whole` are arguments for all rows together, which chunks do without.
    """
    if size == 0 or len(rows) <= size:
        return encode(rows, mask, **whole)
    parts = zip(torch.split(rows, size), torch.split(mask, size), strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([encode(*part) for part in parts])
    return torch.cat([checkpoint(encode, *part, use_reentrant=False) for part in parts])
