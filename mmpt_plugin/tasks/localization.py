"""Step localization: one second of a long video for each of the ordered steps of a known task.

T seconds, K steps.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from mmpt_plugin.corpora.crosstask import CrossTask
from mmpt_plugin.corpora.segments import steps_shown
from mmpt_plugin.metrics.localization import average_recall, ordered_steps, step_costs
from mmpt_plugin.models import Embedder
from mmpt_plugin.registry import register_task
from mmpt_plugin.tasks.benchmark import evenly_spaced
from mmpt_plugin.tasks.windows import WindowedBenchmark, WindowsConfig

CHANCE_DRAWS = 20


@dataclass(kw_only=True)
class StepLocalizationConfig(WindowsConfig):
    """`dataset` is a corpus with the ordered steps of each task, such as `{_name: crosstask, ...}`."""


@register_task("step_localization", dataclass=StepLocalizationConfig)
class StepLocalization(WindowedBenchmark[CrossTask]):
    """Step localization: predicts one second for each step, in the order of the steps, with the least total cost."""

    config: StepLocalizationConfig
    needs = "steps"

    def evaluate(self, model: Embedder) -> dict[str, Any]:
        """Average recall over the tasks, from 0 to 1; chance is the same search with random costs."""
        videos = self.dataset.videos
        costs = list(self.costs(model))
        shown = [
            steps_shown(video.segments, *one.shape) for video, one in zip(videos, costs, strict=True)
        ]  # each (T, K)
        try:
            recall = self._recall(costs, shown)
        except ValueError as error:  # of a task without a step
            raise ValueError(f"{self.dataset.folder}: {error}") from error
        rng = np.random.default_rng(0)
        draws = [self._recall([rng.standard_normal(one.shape) for one in costs], shown) for _ in range(CHANCE_DRAWS)]
        chance = {key: float(np.mean([draw[key] for draw in draws])) for key in recall}
        result = self.result({"num_videos": len(videos), "num_tasks": len(self._tasks())}, recall, chance)
        chosen = evenly_spaced(len(videos), self.config.examples)
        return result | {"examples": [self._example(i, costs[i]) for i in chosen]}

    def _example(self, number: int, costs: Float[np.ndarray, "T K"]) -> dict[str, Any]:
        """The steps of a video as segments, (start, end, step) in seconds; predicted segments last one second."""
        video = self.dataset.videos[number]
        steps = self.dataset.steps[video.group]
        predicted = [(int(at), int(at) + 1, steps[k]) for k, at in enumerate(ordered_steps(costs))]
        true = [(start, end, steps[label]) for start, end, label in video.segments]
        return {
            "video_id": video.video_id,
            "seconds": len(costs),
            "segments": {"predicted": predicted, "true": true},
        }

    def costs(self, model: Embedder) -> Iterator[Float[np.ndarray, "_ K"]]:
        """Yield the cost of each step at each second of every video."""
        steps = {task: self.encode_texts(model, self.dataset.steps[task]) for task in self._tasks()}
        rows = (self.dataset.seconds(video.video_id) for video in self.dataset.videos)
        for video, states in zip(self.dataset.videos, self.encode_seconds(model, rows), strict=True):
            yield step_costs(states.numpy() @ steps[video.group].T)

    def _tasks(self) -> list[str]:
        return list(dict.fromkeys(video.group for video in self.dataset.videos))

    def _recall(self, costs: list[Float[np.ndarray, "_ _"]], shown: list[Bool[np.ndarray, "_ _"]]) -> dict[str, float]:
        groups = [video.group for video in self.dataset.videos]
        return average_recall([ordered_steps(one) for one in costs], shown, groups)
