"""Padded rows and their masks, for all models. B rows, S positions, L text tokens, E output width."""

from collections.abc import Callable
from functools import partial

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from mmpt_plugin.batch import places_of


def full_mask(rows: Tensor, mask: Tensor | None) -> Tensor:
    """The mask (B, S); if it is None, a mask that is True everywhere."""
    return torch.ones(rows.shape[:2], dtype=torch.bool, device=rows.device) if mask is None else mask


def chunked(
    encode: Callable[..., Tensor], rows: Tensor, mask: Bool[Tensor, "B S"], *, size: int, **places: Int[Tensor, " N"]
) -> Float[Tensor, "B E"]:
    """`encode(rows, mask)`, `size` rows at a time; the backward pass recomputes each chunk's activations.

    GradCache (Gao et al., 2021): gradients equal those of the whole batch, including dropout, but only one chunk's
    activations are in memory. `places` are those of `Batch.packed`, if `encode` takes them.
    """
    if size == 0 or len(rows) <= size:
        return encode(rows, mask, **places)
    masks = torch.split(mask, size)
    # To find the places of a chunk waits for a GPU, so they are found before it has work.
    encoders = [partial(encode, places=places_of(part)) if places else encode for part in masks]
    parts = zip(encoders, torch.split(rows, size), masks, strict=True)
    if not torch.is_grad_enabled():
        return torch.cat([one(*part) for one, *part in parts])
    return torch.cat([checkpoint(one, *part, use_reentrant=False) for one, *part in parts])
