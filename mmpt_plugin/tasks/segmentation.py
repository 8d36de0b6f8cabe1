"""Action segmentation: a label, or background, for every second of a long video.

T seconds, K labels, D embedding width.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpt_plugin.corpora.coin import COIN
from mmpt_plugin.corpora.segments import frame_labels, labels_to_segments
from mmpt_plugin.metrics.segmentation import constant_background, segmentation
from mmpt_plugin.models import Embedder, VideoCLIPSegmenter
from mmpt_plugin.registry import register_task
from mmpt_plugin.tasks.benchmark import device_of, evenly_spaced
from mmpt_plugin.tasks.windows import WindowedBenchmark, WindowsConfig


@dataclass(kw_only=True)
class ActionSegmentationConfig(WindowsConfig):
    """`dataset` is a corpus of labels and labelled segments, such as `{_name: coin, ...}`."""


@register_task("action_segmentation", dataclass=ActionSegmentationConfig)
class ActionSegmentation(WindowedBenchmark[COIN]):
    """Action segmentation: predicts the most similar label, or background below a threshold (VideoCLIP, section 5.3).

    The threshold is the highest similarity of two labels. Because most seconds are background, the result also has
    the metrics of predicting background everywhere.
    """

    config: ActionSegmentationConfig
    needs = "labels"

    def evaluate(self, model: Embedder) -> dict[str, Any]:
        """The metrics of `metrics.segmentation`; chance is a random label for each second."""
        num_classes = len(self.dataset.labels) + 1
        predicted, limit = self.predict(model)
        true = [
            frame_labels(video.segments, len(answer))
            for video, answer in zip(self.dataset.videos, predicted, strict=True)
        ]
        rng = np.random.default_rng(0)
        guessed = [rng.integers(0, num_classes, len(labels)) for labels in true]
        metrics, chance = (segmentation(answer, true, num_classes=num_classes) for answer in (predicted, guessed))
        constant = constant_background(true, num_classes=num_classes)
        counts = {"num_videos": len(true), "num_overlaps": self.dataset.num_overlaps}
        examples = [self._example(i, predicted[i], true[i]) for i in evenly_spaced(len(true), self.config.examples)]
        result = self.result(counts, metrics, chance)
        return result | {"constant_background": constant, "threshold": limit, "examples": examples}

    def _example(self, number: int, predicted: Int[np.ndarray, " T"], true: Int[np.ndarray, " T"]) -> dict[str, Any]:
        """The labels of a video as segments, (start, end, label) in seconds."""
        segments = {
            name: [(start, end, self._name(label)) for start, end, label in labels_to_segments(labels)]
            for name, labels in (("predicted", predicted), ("true", true))
        }
        return {"video_id": self.dataset.videos[number].video_id, "seconds": len(true), "segments": segments}

    def _name(self, label: int) -> str:
        """The name of a label; a classifier may have more labels than the data set."""
        names: list[str] = self.dataset.labels
        return names[label - 1] if label <= len(names) else f"label {label}"

    @torch.inference_mode()
    def predict(self, model: Embedder) -> tuple[list[Int[np.ndarray, " _"]], float | None]:
        """One label per second of every video, 0 for background, and the threshold.

        The threshold is None for a model with a classifier.
        """
        if isinstance(model, VideoCLIPSegmenter):
            place = device_of(model), model.text_encoder.dtype
            # The classifier is linear, so it can be applied after averaging over windows.
            logits = (model.classify_states(states.to(*place)) for states in self.states(model))
            return [one.argmax(dim=1).cpu().numpy() for one in logits], None
        labels = self.encode_labels(model)
        limit = threshold(labels)
        return [labels_of(scores, limit) for scores in self.scores(model, labels)], limit

    def encode_labels(self, model: Embedder) -> Float[np.ndarray, "K D"]:
        """One vector per label, that of its name."""
        return self.encode_texts(model, self.dataset.labels)

    def scores(self, model: Embedder, labels: Float[np.ndarray, "K D"]) -> Iterator[Float[np.ndarray, "_ K"]]:
        """Yield the dot products of the seconds of every video with the labels."""
        for states in self.states(model):
            yield states.numpy() @ labels.T

    def states(self, model: Embedder) -> Iterator[Float[Tensor, "_ D"]]:
        """Yield the states of the seconds of every video."""
        videos = (self.dataset.seconds(video.video_id) for video in self.dataset.videos)
        return self.encode_seconds(model, videos)


def threshold(labels: Float[np.ndarray, "K D"]) -> float:
    """The highest dot product of two different labels; ValueError for fewer than two labels."""
    if len(labels) < 2:
        raise ValueError(
            f"segmentation needs at least 2 labels, got {len(labels)}: its threshold is the highest similarity of two"
        )
    return float((labels @ labels.T)[~np.eye(len(labels), dtype=bool)].max())


def labels_of(scores: Float[np.ndarray, "T K"], limit: float) -> Int[np.ndarray, " T"]:
    """The label of the highest score at each second, from 1; 0 if it is not above the limit."""
    return np.where(scores.max(axis=1) > limit, scores.argmax(axis=1) + 1, 0)
