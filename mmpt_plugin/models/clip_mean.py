"""The mean of CLIP's frame vectors: the baseline of models with temporal layers, and a first stage to train them."""

from jaxtyping import Bool, Float
from torch import Tensor

from mmpt_plugin import moved
from mmpt_plugin.models.clip import CLIPModel, CLIPModelConfig, normalized_mean
from mmpt_plugin.registry import register_model


@register_model("clip_mean", dataclass=CLIPModelConfig)
class CLIPMean(CLIPModel):
    """The mean of CLIP's unit frame vectors, and CLIP's text vector (CLIP4Clip, Luo et al., 2021, mean pooling)."""

    def pool_frames(self, frames: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """The unit vector of the mean of each clip's unit frame vectors."""
        return normalized_mean(frames, mask)


__getattr__ = moved.attributes(__name__)
