"""Sliding windows over long videos: the state of each second is averaged over the windows that contain it.

Scores are linear in the states, so the scores are averaged too. B windows, T seconds, F feature width, D width of the
states.
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
    """The overlapping windows that long videos are cut into."""

    window: int = 32
    """Length of a window in seconds; at most `model.max_video_len`."""
    stride: int = 16
    """Seconds from the start of one window to the next, 1 to `window`. The states of a second in several windows are
    averaged."""
    examples: int = 10
    """Number of videos that the result lists with predicted and true segments, evenly spaced over the data."""
    hide_cls: bool = True
    """Mask attention from the seconds to [CLS] if the weights were not trained on per-second states
    (`model.attend_to_cls` is null), as the original does on COIN and CrossTask. Other weights attend as in
    training."""

    RENAMED: ClassVar[dict[str, str]] = {"see_cls": "task.hide_cls"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 1 <= self.stride <= self.window:
            raise ValueError(f"1 <= task.stride <= task.window must hold, got {self.stride} and {self.window}")


class Video:
    """The features of a video, and the running sums of the states of its windows."""

    def __init__(self, rows: Float[Tensor, "T F"], config: WindowsConfig) -> None:
        self.rows, self.window = rows, config.window
        self.starts = window_starts(len(rows), window=config.window, stride=config.stride)
        self.sums: Tensor | None = None
        self.counts = torch.zeros(len(rows), 1)

    def windows(self) -> Iterator[tuple["Video", int]]:
        """Yield the video and the first second of each window."""
        for start in self.starts:
            yield self, start

    def features(self, start: int) -> Float[Tensor, "_ F"]:
        """The feature rows of the window that starts at a second."""
        return self.rows[start : start + self.window]

    def add(self, start: int, states: Float[Tensor, "_ D"]) -> None:
        """Add the states of the window that starts at a second; padding at its end is ignored."""
        length = len(self.features(start))
        if self.sums is None:
            self.sums = states.new_zeros(len(self.rows), states.shape[1])
        self.sums[start : start + length] += states[:length]
        self.counts[start : start + length] += 1

    def is_last(self, start: int) -> bool:
        """Whether this is the video's last window."""
        return start == self.starts[-1]

    def mean(self) -> Float[Tensor, "T D"]:
        """The mean state of each second; call it after all windows were added."""
        assert self.sums is not None
        return self.sums / self.counts


@runtime_checkable
class EncodesSteps(Protocol):
    """A model that encodes each second of a clip, not only whole clips."""

    config: Any

    def encode_video_steps(
        self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B T D"]:
        """One state per second; `mask` is False for padding."""


class WindowedBenchmark(Benchmark[AnyCorpus]):
    """The base class of benchmarks that score every second of long videos."""

    config: WindowsConfig

    def check(self, model: Embedder) -> None:
        """See `Benchmark.check`; the model must also encode each second of a window."""
        super().check(model)
        require_steps(model)
        if self.config.window > model.config.max_video_len:
            raise ValueError(
                f"task.window is {self.config.window} s, but model.max_video_len is {model.config.max_video_len} s"
            )

    def encode_seconds(self, model: Embedder, videos: Iterable[Float[Tensor, "_ F"]]) -> Iterator[Float[Tensor, "_ D"]]:
        """Yield the states of each video, in order; a batch may contain windows of several videos."""
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
    """The model; ValueError if it only encodes whole clips."""
    if not isinstance(model, EncodesSteps):
        raise ValueError(
            f"this task scores every second, but {type(model).__name__} only encodes whole clips: "
            "it has no method encode_video_steps"
        )
    return model
