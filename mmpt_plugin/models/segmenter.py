"""VideoCLIP with a per-second classifier, to fine-tune for action segmentation.

B windows, T seconds, F feature width, C labels.
"""

from dataclasses import dataclass

from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmpt_plugin.batch import LabelledBatch
from mmpt_plugin.models.videoclip import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.registry import register_model


@dataclass(kw_only=True)
class VideoCLIPSegmenterConfig(VideoCLIPConfig):
    """VideoCLIP's configuration and the size of the classifier; the defaults are for COIN."""

    num_labels: int = 779
    """Classes of the classifier, including background (label 0); 779 is COIN's 778 steps and background."""
    attend_to_cls: bool | None = False
    """Whether seconds attend to [CLS]. The original masks [CLS] on COIN, in fine-tuning and evaluation."""


@register_model("videoclip_segmenter", dataclass=VideoCLIPSegmenterConfig)
class VideoCLIPSegmenter(VideoCLIP):
    """VideoCLIP with a linear classifier on the last hidden state of every second (VideoCLIP, section 4.3)."""

    batch_type = LabelledBatch
    heads = ("video_encoder.classifier.",)
    config: VideoCLIPSegmenterConfig

    def add_heads(self) -> None:
        """Create the linear classifier and freeze the text encoder."""
        classifier = nn.Linear(self.config.hidden_size, self.config.num_labels)
        nn.init.normal_(classifier.weight, std=0.02)
        nn.init.zeros_(classifier.bias)
        self.video_encoder.classifier = classifier
        # Data-parallel training needs a gradient for every trained weight, and the text tower gets none.
        self.text_encoder.requires_grad_(False)

    def forward(self, batch: LabelledBatch) -> tuple[Float[Tensor, "B T C"], Int[Tensor, "B T"]]:  # type: ignore[override]
        """Logits, and the target labels."""
        return self.label_logits(batch.video, batch.video_mask), batch.labels

    def label_logits(
        self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T C"]:
        """Logits over the labels for every second; `mask` is False where a row is padding."""
        return self.classify_states(self.encode_video_steps(features, mask))

    def classify_states(self, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B C"]:
        """Logits for states that `encode_video_steps` returned."""
        logits: Tensor = self.video_encoder.get_submodule("classifier")(states)
        return logits
