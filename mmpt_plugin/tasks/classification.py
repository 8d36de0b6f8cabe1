"""Zero-shot classification of videos, by the similarity of their labels' prompts."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float

from mmpt_plugin.corpora.labelled_videos import LabelledVideos
from mmpt_plugin.metrics.classification import classification, classification_chance
from mmpt_plugin.metrics.scores import exact_scores
from mmpt_plugin.models.embedding import Embedder
from mmpt_plugin.registry import register_task
from mmpt_plugin.tasks.benchmark import Benchmark, BenchmarkConfig


@dataclass(kw_only=True)
class ZeroShotClassificationConfig(BenchmarkConfig):
    """`dataset` is a corpus with one label per video, such as `{_name: labelled_csv, ...}`."""

    prompts: list[str] = field(default_factory=lambda: ["{label}"])
    """Templates that contain `{label}`. The vector of a label is the mean of the vectors of its prompts."""

    def __post_init__(self) -> None:
        super().__post_init__()
        wrong = [prompt for prompt in self.prompts if "{label}" not in prompt]
        if wrong or not self.prompts:
            raise ValueError(f"task.prompts must be texts that contain {{label}}, got {wrong or self.prompts}")


@register_task("zero_shot_classification", dataclass=ZeroShotClassificationConfig)
class ZeroShotClassification(Benchmark[LabelledVideos]):
    """Zero-shot classification: predicts the label whose prompts have the highest dot product with the video."""

    config: ZeroShotClassificationConfig
    needs = "labels"

    def evaluate(self, model: Embedder) -> dict[str, Any]:
        """Top-1, top-5 and mean per-class accuracy, from 0 to 1; chance is a random order of the labels."""
        labels, num_labels = np.array([video.label for video in self.dataset.videos]), len(self.dataset.labels)
        metrics = classification(self.scores(model), labels)
        return self.result(
            {"num_videos": len(labels), "num_labels": num_labels}, metrics, classification_chance(num_labels)
        )

    def scores(self, model: Embedder) -> Float[np.ndarray, "N C"]:
        """The dot product of every video with every label."""
        videos = self.encode_whole_videos(model, [video.video_id for video in self.dataset.videos])
        return exact_scores(videos[:, None], self.encode_labels(model)[None])

    def encode_labels(self, model: Embedder) -> Float[np.ndarray, "C D"]:
        """One vector per label: the mean over its prompts."""
        texts = [prompt.replace("{label}", label) for label in self.dataset.labels for prompt in self.config.prompts]
        vectors = self.encode_texts(model, texts)
        return np.asarray(vectors.reshape(len(self.dataset.labels), len(self.config.prompts), -1).mean(axis=1))
