"""What the contrastive losses share: similarities of vectors as they come, and the temperature that divides them."""

import math
from dataclasses import dataclass
from typing import ClassVar

import torch
from jaxtyping import Float
from torch import Tensor, nn

MAX_SCALE = 100.0  # CLIP (Radford et al., 2021), section 2.5


@dataclass(kw_only=True)
class SimilarityConfig:
    """The default is VideoCLIP's. Whether similarities are dot products or cosines is the model's: model.normalize."""

    temperature: float = 1.0
    learn_temperature: bool = False
    """Train it; it stays at 1/100 or above, as CLIP's."""

    RENAMED: ClassVar[dict[str, str]] = {"l2_normalize": "model.normalize"}

    def __post_init__(self) -> None:
        if self.temperature <= 0:
            raise ValueError(f"criterion.temperature must be positive, got {self.temperature}")
        if self.learn_temperature and self.temperature < 1 / MAX_SCALE:
            raise ValueError(
                f"criterion.temperature is learned, and kept at {1 / MAX_SCALE:g} or above, got {self.temperature}"
            )


class SimilarityCriterion(nn.Module):
    """A loss of scaled similarities; the logarithm of the scale, 1 / temperature, is what is learned."""

    expects_unit_vectors: bool = False
    """Whether the loss is defined on cosines: then training refuses a model whose vectors have other lengths."""

    def __init__(self, config: SimilarityConfig) -> None:
        super().__init__()
        self.config = config
        scale = torch.tensor(-math.log(config.temperature))
        self.log_scale: Tensor
        if config.learn_temperature:
            self.log_scale = nn.Parameter(scale)
        else:
            self.register_buffer("log_scale", scale, persistent=False)

    def scale(self) -> Float[Tensor, ""]:
        """1 / temperature. A learned one past its limit is set back to it first, and so can come down again."""
        if self.config.learn_temperature:
            with torch.no_grad():
                self.log_scale.clamp_(max=math.log(MAX_SCALE))
        return self.log_scale.to(torch.promote_types(self.log_scale.dtype, torch.float32)).exp()

    def prepare(
        self, video: Float[Tensor, "B D"], text: Float[Tensor, "B D"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """In float32 or wider."""
        dtype = torch.promote_types(video.dtype, torch.float32)
        return video.to(dtype), text.to(dtype)
