"""The Protocol of each kind of component, against which a class is checked when it registers.

A registered class is built as `cls(config)`, plus the arguments in the docstring of its kind. Inheritance is optional;
the base classes of `mmpt_plugin` (`PretrainedEmbedder`, `Criterion`, `Benchmark`, `Corpus`) implement most methods.

B pairs, D embedding width, T video steps, V videos, C clusters of K videos.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from mmpt_plugin.batch import Batch, Cluster

if TYPE_CHECKING:
    from mmpt_plugin.search.stores.store import Hit, StoredVideo, Where, Windows

Embed = Callable[..., Float[np.ndarray, "V D"]]
"""Returns one vector per video; with `gather=False` only those of this rank's share, which are in order of ranks."""


@runtime_checkable
class Model(Protocol):
    """An `nn.Module`, `cls(config)`, that maps a batch to the inputs of its criterion.

    A contrastive model returns (video (B, D), text (B, D)). Subclass `PretrainedEmbedder` for saving, loading,
    evaluation and search.
    """

    def __call__(self, batch: Any) -> Any: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...


@runtime_checkable
class Criterion(Protocol):
    """An `nn.Module`, `cls(config)`, that maps a model's outputs to a scalar loss.

    Optional: `with_metrics(*outputs)` returns the loss and a dict of values to log; `batch_fields` names the fields of
    the batch that are passed as keyword arguments; `expects_unit_vectors` is True for a loss of cosine similarities.
    """

    def __call__(self, *outputs: Tensor, **batch_fields: Tensor) -> Tensor: ...


@runtime_checkable
class TrainingTask(Protocol):
    """A task that trains, `cls(config)`. Optional: `measure(model)` returns metrics at each validation."""

    def dataset(self, split: str) -> "Dataset":
        """The data set of a split."""

    def sampler(self, dataset: Any, *, split: str, seed: int) -> "Sampler":
        """The sampler that chooses the videos of each batch."""


@runtime_checkable
class BenchmarkTask(Protocol):
    """A task that evaluates, `cls(config)`. Optional: `check(model)`, a ValueError for a model that does not fit."""

    def evaluate(self, model: Any) -> dict[str, Any]:
        """Return `{"metrics": {name: value}, "chance": {name: value}, ...}`."""


Task = TrainingTask | BenchmarkTask


@runtime_checkable
class Dataset(Protocol):
    """Training data, `cls(config, split)`: `len(dataset)` is the number of videos, `dataset[Cluster]` is a batch.

    Optional: `video_ids`, to check that splits share no videos; `vocab_size`, `max_text_len` and `num_labels`, to check
    that the model fits.
    """

    feature_dim: int | None
    """Width of the feature rows; None for frames."""
    pad_id: int
    """The token id that pads texts to equal length when clusters are collated."""

    def __len__(self) -> int: ...

    def __getitem__(self, cluster: Cluster) -> Batch: ...


@runtime_checkable
class Corpus(Protocol):
    """The annotations of a benchmark, `cls(config)`, with the features or frames of the videos.

    Tasks need more attributes: `clips` (`ClipCorpus`) for retrieval, `videos` and `labels` for classification and
    segmentation.
    """

    config: Any
    video_ids: list[str]
    """Ids of the videos in use, without repeats."""
    missing_videos: list[str]
    """Ids of annotated videos without features, or whose files can't be read."""

    @property
    def feature_dim(self) -> int | None:
        """Width of the feature rows; None for frames."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the annotations and of the features or videos in use."""

    def clip(
        self, video_id: str, start: float = 0.0, end: float | None = None, *, max_video_len: int
    ) -> Float[Tensor, "T F"] | UInt8[Tensor, "T H W 3"]:
        """The model's input for a video from `start` to `end` (seconds; None is the end of the video)."""


@runtime_checkable
class Sampler(Protocol):
    """Chooses the videos of each batch, `cls(config, num_videos=, seed=)`.

    Optional: `num_clusters`, the number of clusters per epoch, which sets the length of the learning-rate schedule.
    """

    def clusters(self, epoch: int, embed: Embed) -> Int[np.ndarray, "C K"]:
        """Video indices, one row per cluster, equal on all ranks. `embed()` returns one vector per video."""


@runtime_checkable
class Encoder(Protocol):
    """A frozen feature extractor, `cls(config)`: maps S seconds of F = `fps` frames each to S feature rows.

    An attribute `scaling` is optional: `ffmpeg`, the default, or `pillow`, see `video.decode.SCALINGS`.
    """

    fps: int
    """Frames per second."""
    size: int
    """Width and height of a frame in pixels."""
    feature_dim: int
    """Width of a feature row."""
    fingerprint: str
    """Identifies name, settings and weights; equal fingerprints mean equal features."""

    def __call__(self, frames: UInt8[Tensor, "S F H W 3"]) -> Float[Tensor, "S D"]: ...


EncoderSettings = str | Mapping[str, Any] | Encoder
"""An encoder: its name, settings such as `{"_name": "s3d", "weights": ...}`, or an instance."""


@runtime_checkable
class Store(Protocol):
    """Keeps the windows of a collection and finds the nearest, `cls(config)`, where `config.url` says where it is.

    A video is replaced, or removed, as a whole: readers see all of its old windows or all of its new ones. Several
    processes may use a store at the same time. Errors are ValueErrors of one line that starts with the URL.
    """

    def exists(self) -> bool:
        """Whether there is a collection at the URL."""

    def create(self, settings: Mapping[str, Any], *, width: int) -> None:
        """Create an empty collection of vectors of this width, with settings that never change."""

    def settings(self) -> dict[str, Any]:
        """The settings of `create`; ValueError if there is no collection."""

    def replace(self, videos: "Mapping[str, tuple[StoredVideo, Windows]]") -> None:
        """Set all windows of these videos, by id."""

    def remove(self, videos: Sequence[str]) -> None:
        """Remove these videos; ids that are not in the store are ignored."""

    def nearest(self, vector: Float[np.ndarray, " D"], k: int, where: "Where") -> "list[Hit]":
        """The `k` windows with the largest dot products, largest first; fewer if there are fewer."""

    def rows(self, video: str) -> "Windows":
        """The windows of a video in order; no windows for an unknown id."""

    def videos(self) -> "dict[str, StoredVideo]":
        """All videos by id, sorted."""

    def compact(self) -> None:
        """Merge what many calls of `replace` wrote, and build or extend the index. Searches work meanwhile."""
