"""Sliding windows over long videos: every second's state, averaged over the windows that hold it.

Scores are linear in the states, so this is the mean of the windows' scores too.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import tee
from typing import Any, ClassVar, Protocol, runtime_checkable

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmpt_plugin.corpora.corpus import AnyCorpus
from mmpt_plugin.corpora.segments import window_starts
from mmpt_plugin.models import Embedder
from mmpt_plugin.tasks.benchmark import Benchmark, BenchmarkConfig, batches, on_all_gpus, pad


@dataclass(kw_only=True)
class WindowsConfig(BenchmarkConfig):
    """How long videos are cut into overlapping windows."""

    window: int = 32
    """Seconds that the model sees at a time; at most `model.max_video_len`."""
    stride: int = 16
    """Seconds from the start of one window to the next, 1 to `window`. States of seconds that several windows hold are
    averaged."""
    examples: int = 10
    """Videos that the result lists with predicted and true segments, spread evenly over the data."""
    hide_cls: bool = True
    """Hide [CLS] from the seconds if the weights were not trained on per-second states (`model.attend_to_cls` is null),
    as the original does on COIN and CrossTask. Other weights attend as they were trained."""

    RENAMED: ClassVar[dict[str, str]] = {"see_cls": "task.hide_cls"}

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
        """The feature rows of the window that starts at a second."""
        return self.rows[start : start + self.window]

    def add(self, start: int, states: Float[Tensor, "_ D"]) -> None:
        """Add the states of the window that starts at a second; rows of padding at its end are ignored."""
        length = len(self.features(start))
        if self.sums is None:
            self.sums = states.new_zeros(len(self.rows), states.shape[1])
        self.sums[start : start + length] += states[:length]
        self.counts[start : start + length] += 1

    def is_last(self, start: int) -> bool:
        """Whether this is the video's last window."""
        return start == self.starts[-1]

    def mean(self) -> Float[Tensor, "T D"]:
        """The mean state of every second, once all windows were added."""
        assert self.sums is not None
        return self.sums / self.counts


@runtime_checkable
class EncodesSteps(Protocol):
    """A model with a state for every second, not only vectors of whole clips."""

    config: Any

    def encode_video_steps(
        self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """One state per second; `mask` is False where a row is padding."""


class WindowedBenchmark(Benchmark[AnyCorpus]):
    """A benchmark of every second of long videos."""

    config: WindowsConfig

    def check(self, model: Embedder) -> None:
        """See `Benchmark.check`; the model must also encode every second of a window."""
        super().check(model)
        require_steps(model)
        if self.config.window > model.config.max_video_len:
            raise ValueError(f"task.window is {self.config.window}, but the model sees {model.config.max_video_len} s")

    def encode_seconds(self, model: Embedder, videos: Iterable[Float[Tensor, "_ F"]]) -> Iterator[Float[Tensor, "_ D"]]:
        """The states of every video, in order; a batch may hold windows of several videos."""
        self.check(model)
        windows = (window for rows in videos for window in Video(rows, self.config).windows())
        undecided = getattr(model.config, "attend_to_cls", False) is None
        options: dict[str, Any] = {"attend_to_cls": not self.config.hide_cls} if undecided else {}

        def encode(model: Embedder, batch: list[tuple[Video, int]]) -> Tensor:
            clip = pad([video.features(start) for video, start in batch], model)
            return require_steps(model).encode_video_steps(*clip, **options)

        groups, waiting = tee(batches(windows, self.config.eval_chunk_size))
        for batch, states in zip(waiting, on_all_gpus(model, encode, groups), strict=True):
            for (video, start), of_window in zip(batch, states, strict=True):
                video.add(start, of_window)
                if video.is_last(start):
                    yield video.mean()


def require_steps(model: Embedder) -> EncodesSteps:
    """ValueError for a model that has vectors of whole clips only."""
    if not isinstance(model, EncodesSteps):
        raise ValueError(
            f"this task scores every second, and a {type(model).__name__} has no state for each "
            "(method encode_video_steps)"
        )
    return model
