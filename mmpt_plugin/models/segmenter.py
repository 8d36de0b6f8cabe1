"""VideoCLIP with a label a second: the classifier that action segmentation is fine-tuned with.

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
    """VideoCLIP's configuration and the size of the classifier; the defaults are COIN's."""

    num_labels: int = 779
    """Classes of the classifier, background (label 0) included; 779 is COIN's 778 steps and background."""
    attend_to_cls: bool | None = False
    """Whether seconds attend to [CLS]. The original fine-tunes and measures COIN with [CLS] hidden."""


@register_model("videoclip_segmenter", dataclass=VideoCLIPSegmenterConfig)
class VideoCLIPSegmenter(VideoCLIP):
    """VideoCLIP with a linear classifier on the last hidden state of every second (VideoCLIP, section 4.3)."""

    model_type = "videoclip_segmenter"
    config_type = VideoCLIPSegmenterConfig
    batch_type = LabelledBatch
    heads = ("video_encoder.classifier.",)
    config: VideoCLIPSegmenterConfig

    def add_heads(self) -> None:
        """The linear classifier; the text encoder is frozen, because training does not read it."""
        classifier = nn.Linear(self.config.hidden_size, self.config.num_labels)
        nn.init.normal_(classifier.weight, std=0.02)
        nn.init.zeros_(classifier.bias)
        self.video_encoder.classifier = classifier
        # Training never reads the text tower, and wants a gradient for all that it trains.
        self.text_encoder.requires_grad_(False)

    def forward(self, batch: LabelledBatch) -> tuple[Float[Tensor, "B T C"], Int[Tensor, "B T"]]:  # type: ignore[override]
        """Logits, and the labels they should have."""
        return self.label_logits(batch.video, batch.video_mask), batch.labels

    def label_logits(
        self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T C"]:
        """Logits of every second's label; `mask` is False where a row is padding."""
        return self.classify_states(self.encode_video_steps(features, mask))

    def classify_states(self, states: Float[Tensor, "*B D"]) -> Float[Tensor, "*B C"]:
        """Logits of states that `encode_video_steps` returned."""
        logits: Tensor = self.video_encoder.get_submodule("classifier")(states)
        return logits
