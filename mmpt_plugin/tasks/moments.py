"""Moment localisation: which five-second chunks of a short video a description is about."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpt_plugin.metrics.moments import moment_localization
from mmpt_plugin.models import VideoCLIP
from mmpt_plugin.registry import register_task
from mmpt_plugin.tasks.benchmark import Benchmark, BenchmarkConfig, batches, pad

NUM_CHUNKS, CHUNK_SECONDS = 6, 5
CHANCE_DRAWS = 20

# A moment is its first and last chunk: single chunks first, then every longer run of them.
MOMENTS = [(i, i) for i in range(NUM_CHUNKS)] + [(i, j) for i in range(NUM_CHUNKS) for j in range(i + 1, NUM_CHUNKS)]

Ranking = list[tuple[int, int]]


@dataclass(kw_only=True)
class MomentLocalizationConfig(BenchmarkConfig):
    """`dataset` is one with described moments, {_name: didemo_moments, ...}."""


@register_task("moment_localization", dataclass=MomentLocalizationConfig)
class MomentLocalization(Benchmark):
    """The 21 runs of chunks in the order of the dot product of their mean state with the description's text."""

    def evaluate(self, model: VideoCLIP) -> dict[str, Any]:
        """Chance is a random order."""
        times = [moment.times for moment in self.dataset.moments]
        rankings = self.rankings(model)
        rng = np.random.default_rng(0)
        draws = [
            moment_localization([[own[i] for i in rng.permutation(len(own))] for own in rankings], times)
            for _ in range(CHANCE_DRAWS)
        ]
        metrics = moment_localization(rankings, times)
        chance = {key: float(np.mean([draw[key] for draw in draws])) for key in metrics}
        return self.result({"num_queries": len(times)}, metrics, chance)

    def rankings(self, model: VideoCLIP) -> list[Ranking]:
        """Of every description, the moments that the video's features reach, best first."""
        moments = self.dataset.moments
        texts = self.encode_texts(model, [moment.description for moment in moments])
        vectors = dict(self._encode_moments(model))
        ranked = []
        for moment, text in zip(moments, texts, strict=True):
            length, of_video = vectors[moment.video_id]
            order: Int[np.ndarray, " M"] = np.argsort(-(of_video @ text), kind="stable")
            ranked.append([MOMENTS[i] for i in order if MOMENTS[i][0] * CHUNK_SECONDS < length])
        return ranked

    def _encode_moments(self, model: VideoCLIP) -> Iterator[tuple[str, tuple[int, Float[np.ndarray, "21 D"]]]]:
        """Each video's length and the vectors of its moments; padding counts in the mean, as in the original."""
        length = NUM_CHUNKS * CHUNK_SECONDS
        seen = model.config.max_video_len
        if seen < length:
            raise ValueError(f"moments lie in {length} s, but the model sees {seen} s (model.max_video_len)")
        videos = list(dict.fromkeys(moment.video_id for moment in self.dataset.moments))
        for some in batches(videos, self.config.clips_at_once):
            rows = [self.dataset.seconds(video_id, 0, seen) for video_id in some]
            with torch.inference_mode():
                states = model.encode_video_steps(*pad(rows, model, length=seen)).float().cpu()
            for video_id, own, of_video in zip(some, rows, states, strict=True):
                yield video_id, (len(own), torch.stack([mean(of_video, *moment) for moment in MOMENTS]).numpy())


def mean(states: Float[Tensor, "T D"], first: int, last: int) -> Float[Tensor, " D"]:
    return states[first * CHUNK_SECONDS : (last + 1) * CHUNK_SECONDS].mean(dim=0)
