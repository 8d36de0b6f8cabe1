"""Moment localization: the five-second chunks of a short video that match a description.

Q descriptions, 21 moments, D embedding width, T seconds.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmpt_plugin.corpora.didemo import DiDeMoMoments
from mmpt_plugin.metrics.moments import MOMENTS, NUM_CHUNKS, moments, moments_chance
from mmpt_plugin.metrics.scores import exact_scores
from mmpt_plugin.models import Embedder
from mmpt_plugin.registry import register_task
from mmpt_plugin.tasks.benchmark import Benchmark, BenchmarkConfig, batches, pad
from mmpt_plugin.tasks.windows import require_steps

CHUNK_SECONDS = 5
LENGTH = NUM_CHUNKS * CHUNK_SECONDS

Metric = Callable[[np.ndarray, np.ndarray, np.ndarray], dict[str, float]]


@dataclass(kw_only=True)
class MomentLocalizationConfig(BenchmarkConfig):
    """`dataset` is a corpus of described moments, such as `{_name: didemo_moments, ...}`."""


@register_task("moment_localization", dataclass=MomentLocalizationConfig)
class MomentLocalization(Benchmark[DiDeMoMoments]):
    """Moment localization: ranks the 21 moments by the dot product of their mean state with the description.

    A moment is a run of five-second chunks of a 30 s video.
    """

    needs = "moments"

    def check(self, model: Embedder) -> None:
        """See `Benchmark.check`; the model must also encode each second of a 30 s video."""
        super().check(model)
        require_steps(model)
        if model.config.max_video_len < LENGTH:
            raise ValueError(
                f"moment localization needs {LENGTH} s of video, but model.max_video_len is "
                f"{model.config.max_video_len} s"
            )

    def evaluate(self, model: Embedder) -> dict[str, Any]:
        """rank@1, rank@5 and mean IoU, from 0 to 1; chance is a random order of the moments."""
        scores, possible = self.scores(model)
        rng = np.random.default_rng(0)
        metrics = self._mean(moments, scores, possible)
        guess = self._mean(lambda _, times, reached: moments_chance(times, reached, rng=rng), scores, possible)
        return self.result({"num_queries": len(scores)}, metrics, guess)

    def scores(self, model: Embedder) -> tuple[Float[np.ndarray, "Q 21"], Bool[np.ndarray, "Q 21"]]:
        """The score of every description and moment, and whether the moment starts before the end of the features."""
        described = self.dataset.moments
        texts = self.encode_texts(model, [moment.description for moment in described])
        videos = dict(self._encode_moments(model))
        lengths = np.array([videos[moment.video_id][0] for moment in described])
        vectors = np.stack([videos[moment.video_id][1] for moment in described])  # (Q, 21, D)
        return exact_scores(vectors, texts[:, None]), MOMENTS[:, 0] * CHUNK_SECONDS < lengths[:, None]

    def _mean(
        self, metric: Metric, scores: Float[np.ndarray, "Q 21"], possible: Bool[np.ndarray, "Q 21"]
    ) -> dict[str, float]:
        """The mean of a metric over all descriptions, computed per group with equally many annotators."""
        times = [moment.times for moment in self.dataset.moments]
        counts = np.array([len(own) for own in times])
        parts = []
        for count in np.unique(counts):
            rows = np.flatnonzero(counts == count)
            values = metric(scores[rows], np.array([times[row] for row in rows]), possible[rows])
            parts.append({key: value * len(rows) / len(times) for key, value in values.items()})
        return {key: sum(part[key] for part in parts) for key in parts[0]}

    def _encode_moments(self, model: Embedder) -> Iterator[tuple[str, tuple[int, Float[np.ndarray, "21 D"]]]]:
        """Yield each video's length and the vectors of its moments; means include padding, as in the original."""
        self.check(model)
        seen = model.config.max_video_len
        videos = list(dict.fromkeys(moment.video_id for moment in self.dataset.moments))
        for some in batches(videos, self.config.eval_chunk_size):
            rows = [self.dataset.seconds(video_id, 0, seen) for video_id in some]
            with torch.inference_mode():
                states = require_steps(model).encode_video_steps(*pad(rows, model, length=seen)).float().cpu()
            for video_id, own, of_video in zip(some, rows, states, strict=True):
                yield (
                    video_id,
                    (len(own), torch.stack([mean(of_video, *moment) for moment in MOMENTS.tolist()]).numpy()),
                )


def mean(states: Float[Tensor, "T D"], first: int, last: int) -> Float[Tensor, " D"]:
    """The mean state of the chunks `first` to `last`, both included."""
    return states[first * CHUNK_SECONDS : (last + 1) * CHUNK_SECONDS].mean(dim=0)
