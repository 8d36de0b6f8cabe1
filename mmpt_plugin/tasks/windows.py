"""Sliding windows over long videos: every second's state, averaged over the windows that hold it.

Scores are linear in the states, so this is the mean of the windows' scores too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee

import torch
from jaxtyping import Float
from torch import Tensor

from mmpt_plugin.datasets.segments import window_starts
from mmpt_plugin.models import Embedder, VideoCLIP
from mmpt_plugin.tasks.benchmark import BenchmarkConfig, batches, on_all_gpus, pad


@dataclass(kw_only=True)
class WindowsConfig(BenchmarkConfig):
    window: int = 32
    """Seconds that the model sees together; clips_at_once counts windows."""
    stride: int = 16
    examples: int = 10
    """How many videos the result shows in full, spread evenly over the data."""
    see_cls: bool = False
    """Whether seconds attend to [CLS]. The released weights' numbers were measured without, though in training
    they do."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.stride <= self.window:
            raise ValueError(f"1 <= task.stride <= task.window must hold, got {self.stride} and {self.window}")


class Video:
    """A video's features, and the sums of the states that its windows have brought so far."""

    def __init__(self, rows: Float[Tensor, "T F"], config: WindowsConfig) -> None:
        self.rows, self.window = rows, config.window
        self.starts = window_starts(len(rows), window=config.window, stride=config.stride)
        self.sums: Tensor | None = None
        self.counts = torch.zeros(len(rows), 1)

    def windows(self) -> Iterator[tuple["Video", int]]:
        """Each by its first second."""
        for start in self.starts:
            yield self, start

    def features(self, start: int) -> Float[Tensor, "_ F"]:
        return self.rows[start : start + self.window]

    def add(self, start: int, states: Float[Tensor, "_ D"]) -> None:
        length = len(self.features(start))
        if self.sums is None:
            self.sums = states.new_zeros(len(self.rows), states.shape[1])
        self.sums[start : start + length] += states[:length]
        self.counts[start : start + length] += 1

    def is_last(self, start: int) -> bool:
        return start == self.starts[-1]

    def mean(self) -> Float[Tensor, "T D"]:
        assert self.sums is not None
        return self.sums / self.counts


def encode_seconds(
    model: Embedder, videos: Iterable[Float[Tensor, "_ F"]], config: WindowsConfig
) -> Iterator[Float[Tensor, "_ D"]]:
    """The states of every video, in order; a batch may hold windows of several videos."""
    require_states(model)
    if config.window > model.config.max_video_len:
        raise ValueError(f"task.window is {config.window}, but the model sees {model.config.max_video_len} s")
    windows = (window for rows in videos for window in Video(rows, config).windows())

    def encode(model: Embedder, batch: list[tuple[Video, int]]) -> Tensor:
        assert isinstance(model, VideoCLIP)
        clip = pad([video.features(start) for video, start in batch], model)
        return model.encode_video_steps(*clip, see_cls=config.see_cls)

    groups, waiting = tee(batches(windows, config.clips_at_once))
    for batch, states in zip(waiting, on_all_gpus(model, encode, groups), strict=True):
        for (video, start), of_window in zip(batch, states, strict=True):
            video.add(start, of_window)
            if video.is_last(start):
                yield video.mean()


def require_states(model: Embedder) -> VideoCLIP:
    """A model with a state for every second; ValueError for one that has vectors of whole clips only."""
    if not isinstance(model, VideoCLIP):
        raise ValueError(f"this task scores every second, and a {type(model).__name__} has no state for each")
    return model
