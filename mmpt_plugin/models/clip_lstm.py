"""An LSTM across CLIP's frame vectors, and their mean."""

from jaxtyping import Bool, Float
from torch import Tensor, nn

from mmpt_plugin.models.clip import CLIPModel, CLIPModelConfig, normalized_mean
from mmpt_plugin.registry import register_model


@register_model("clip_lstm", dataclass=CLIPModelConfig)
class CLIPLSTM(CLIPModel):
    """The mean of frame vectors after an LSTM across them, and CLIP's text vector (CLIP4Clip, Luo et al., 2021,
    `seqLSTM`)."""

    heads = ("lstm.",)

    def add_heads(self) -> None:
        """See `CLIPModel.add_heads`."""
        self.lstm = nn.LSTM(self.backbone.width, self.backbone.width, batch_first=True)

    def pool_frames(self, frames: Float[Tensor, "B T D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """The unit vector of the mean of the LSTM's unit outputs, which are added to its inputs."""
        order = mask.int().argsort(dim=1, descending=True, stable=True)  # padding last: the LSTM must not read it
        frames, mask = frames.gather(1, order[..., None].expand_as(frames)), mask.gather(1, order)
        frames = frames.to(self.lstm.all_weights[0][0].dtype)
        return normalized_mean(frames + self.lstm(frames)[0], mask)
