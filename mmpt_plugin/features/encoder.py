"""What a frozen video encoder is: frames of whole seconds in, one row a second out."""

from typing import Protocol, runtime_checkable

from jaxtyping import Float, UInt8
from torch import Tensor


@runtime_checkable
class Encoder(Protocol):
    """S seconds, `fps` frames each, of size x size pixels."""

    fps: int
    size: int
    feature_dim: int
    fingerprint: str
    """Equal for encoders that give equal features: name, settings and weights."""

    def __call__(self, frames: UInt8[Tensor, "S F H W 3"]) -> Float[Tensor, "S D"]: ...
