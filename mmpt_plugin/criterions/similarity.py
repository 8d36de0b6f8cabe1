"""Base class of the contrastive losses: similarities divided by a fixed or learned temperature."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import FunctionCtx
from torch.utils.checkpoint import checkpoint

from mmpt_plugin.criterions.criterion import Criterion, full_precision

MAX_SCALE = 100.0  # CLIP (Radford et al., 2021), section 2.5


@dataclass(kw_only=True)
class SimilarityConfig:
    """How similarities are scaled; `model.normalize` decides whether they are dot products or cosines."""

    temperature: float = 1.0
    """Similarities are divided by it; the start value if it is learned. VideoCLIP does not scale them: 1.0."""
    learn_temperature: bool = False
    """Train the temperature with the model. It stays at 0.01 or above, as in CLIP."""
    score_chunk_size: int = 1024
    """Rows of this rank scored at a time against those of all ranks, also in the backward pass, which computes the
    scores again. Lower it to save memory; the loss does not change."""

    RENAMED: ClassVar[dict[str, str]] = {"l2_normalize": "model.normalize"}

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"criterion.temperature must be positive, got {self.temperature}")
        if self.learn_temperature and self.temperature < 1 / MAX_SCALE:
            raise ValueError(
                f"criterion.temperature is learned, and kept at {1 / MAX_SCALE:g} or above, got {self.temperature}"
            )
        if self.score_chunk_size < 1:
            raise ValueError(f"criterion.score_chunk_size must be at least 1, got {self.score_chunk_size}")


class SimilarityCriterion(Criterion):
    """A loss on scaled similarities. The learned parameter is the logarithm of the scale, 1 / temperature."""

    def __init__(self, config: SimilarityConfig) -> None:
        super().__init__()
        self.config = config
        if config.learn_temperature:
            self.log_scale = nn.Parameter(torch.tensor([-math.log(config.temperature)]))

    def scale(self) -> Float[Tensor, " 1"] | float:
        """1 / temperature; a learned one is at most MAX_SCALE."""
        if not self.config.learn_temperature:
            return 1 / self.config.temperature
        bounded: Tensor = _AtMost.apply(self.log_scale, math.log(MAX_SCALE))  # type: ignore[no-untyped-call]
        return full_precision(bounded).exp()

    def in_chunks(self, compare: Callable[..., tuple[Tensor, ...]], *rows: Tensor) -> tuple[Tensor, ...]:
        """The sums of what `compare(*rows)` returns for `score_chunk_size` rows at a time. Only one chunk's scores are
        in memory."""
        size = self.config.score_chunk_size
        if len(rows[0]) <= size:
            return compare(*rows)
        chunks = zip(*(torch.split(tensor, size) for tensor in rows), strict=True)
        parts = [checkpoint(compare, *some, use_reentrant=False) for some in chunks]
        return tuple(torch.stack(values).sum() for values in zip(*parts, strict=True))


class _AtMost(torch.autograd.Function):
    """`value` clamped to a limit. At or above the limit, only gradients that decrease the value pass, so it can return
    below the limit but not grow further.

    The parameter itself is not changed: under fp16 the optimizer keeps its own copy, which would not see the change.
    """

    @staticmethod
    def forward(ctx: FunctionCtx, value: Tensor, limit: float) -> Tensor:
        ctx.beyond = value >= limit  # type: ignore[attr-defined]
        return value.clamp(max=limit)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        (grad,) = grads
        return torch.where(ctx.beyond & (grad < 0), 0, grad), None
