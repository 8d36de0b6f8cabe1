"""Action segmentation: a label, or none, for every second of a long video."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.datasets.segments import painted
from mmpt_plugin.metrics.segmentation import constant_background, segmentation
from mmpt_plugin.models import VideoCLIP
from mmpt_plugin.registry import register_task
from mmpt_plugin.tasks.benchmark import Benchmark
from mmpt_plugin.tasks.windows import WindowsConfig, encode_seconds


@dataclass(kw_only=True)
class ActionSegmentationConfig(WindowsConfig):
    """`dataset` is one with labels and segments of them, {_name: coin, ...}."""


@register_task("action_segmentation", dataclass=ActionSegmentationConfig)
class ActionSegmentation(Benchmark):
    """Every second's state against every label's text; no label where none is as close as labels are to each other.

    (VideoCLIP, section 5.3.) A label for nothing at all is the right one for most seconds, so the metrics of
    that constant answer stand beside the model's.
    """

    config: ActionSegmentationConfig

    def evaluate(self, model: VideoCLIP) -> dict[str, Any]:
        num_classes = len(self.dataset.labels) + 1
        labels = self.encode_labels(model)
        limit = threshold(labels)
        predicted, true = [], []
        for video, scores in zip(self.dataset.videos, self.scores(model, labels), strict=True):
            predicted.append(labels_of(scores, limit))
            true.append(painted(video.segments, len(scores)))
        rng = np.random.default_rng(0)
        guessed = [rng.integers(0, num_classes, len(labels)) for labels in true]
        metrics, chance = (segmentation(answer, true, num_classes=num_classes) for answer in (predicted, guessed))
        constant = constant_background(true, num_classes=num_classes)
        counts = {"num_videos": len(true), "num_overlaps": self.dataset.num_overlaps}
        return self.result(counts, metrics, chance) | {"constant_background": constant, "threshold": limit}

    def encode_labels(self, model: VideoCLIP) -> Float[np.ndarray, "K D"]:
        return self.encode_texts(model, self.dataset.labels)

    def scores(self, model: VideoCLIP, labels: Float[np.ndarray, "K D"]) -> Iterator[Float[np.ndarray, "_ K"]]:
        """Of every video, second by label."""
        videos = (self.dataset.seconds(video.video_id) for video in self.dataset.videos)
        for states in encode_seconds(model, videos, self.config):
            yield states.numpy() @ labels.T


def threshold(labels: Float[np.ndarray, "K D"]) -> float:
    """The score of the two labels most like each other."""
    if len(labels) < 2:
        raise ValueError("segmentation takes its threshold from the labels' own similarities: it needs two labels")
    return float((labels @ labels.T)[~np.eye(len(labels), dtype=bool)].max())


def labels_of(scores: Float[np.ndarray, "T K"], limit: float) -> Int[np.ndarray, " T"]:
    """Labels from 1, 0 where no score is above the limit."""
    return np.where(scores.max(axis=1) > limit, scores.argmax(axis=1) + 1, 0)
