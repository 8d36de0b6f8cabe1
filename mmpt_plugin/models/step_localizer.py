"""VideoCLIP, fine-tuned to classify which step of a task each second shows.

W windows of a video, T seconds, K steps, S seconds in all windows.
"""

from dataclasses import dataclass

from jaxtyping import Float
from torch import Tensor

from mmpt_plugin.batch import StepBatch
from mmpt_plugin.models.embedding import places_for
from mmpt_plugin.models.packed import Packing
from mmpt_plugin.models.videoclip import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.registry import register_model


@dataclass(kw_only=True)
class VideoCLIPStepLocalizerConfig(VideoCLIPConfig):
    """VideoCLIP's configuration, with the defaults for fine-tuning on CrossTask."""

    attend_to_cls: bool | None = False
    """Whether seconds attend to [CLS]. The original masks [CLS] on CrossTask, in fine-tuning and evaluation."""


@register_model("videoclip_step_localizer", dataclass=VideoCLIPStepLocalizerConfig)
class VideoCLIPStepLocalizer(VideoCLIP):
    """VideoCLIP that scores the last hidden state of every second against the text of every step (section 4.3).

    It adds no weights, so you can load any VideoCLIP checkpoint into it.
    """

    batch_type = StepBatch

    def forward(self, batch: StepBatch) -> tuple[Float[Tensor, "S K"], Float[Tensor, "S K"]]:  # type: ignore[override]
        """Logits, and the targets: which steps each second shows."""
        states = self.encode_video_steps(batch.video, batch.video_mask)
        text = self.encode_text(batch.text, batch.text_mask, **places_for(self.text_vectors, batch.text_places))
        seconds = Packing.of(batch.video_mask, batch.video_places)
        return seconds.pack(states) @ text.T, seconds.pack(batch.shown)
