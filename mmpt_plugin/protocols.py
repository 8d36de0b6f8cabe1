"""What a component of each kind has: the Protocols that registered classes follow.

A registered class is built as `cls(config)`, with the extra arguments that its kind's docstring names. Nothing needs to
be inherited; the base classes of `mmpt_plugin` (`PretrainedEmbedder`, `Criterion`, `Benchmark`, `Corpus`) provide most
of it.

B pairs, D embedding width, T video steps, L text tokens, V videos, C clusters of K videos.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Protocol, runtime_checkable

import numpy as np
from jaxtyping import Float, Int, UInt8
from torch import Tensor, nn

from mmpt_plugin.batch import Batch, Cluster

Embed = Callable[..., Float[np.ndarray, "V D"]]
"""One vector per video; with `gather=False` only those of this rank's share, which follow the lower ranks'."""


@runtime_checkable
class Model(Protocol):
    """An `nn.Module`, `cls(config)`, from a batch to what its criterion compares.

    For contrastive models that is (video (B, D), text (B, D)). Subclass `PretrainedEmbedder` to be saved, loaded,
    evaluated and searched with as well.
    """

    def __call__(self, batch: Any) -> Any: ...

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...


@runtime_checkable
class Criterion(Protocol):
    """An `nn.Module`, `cls(config)`, from a model's outputs to a scalar loss.

    Optional: `with_metrics(*outputs)` returns the loss and a dict of values to log; `batch_fields` names fields of the
    batch that are passed as keywords; `expects_unit_vectors` says that the loss is defined on cosines.
    """

    def __call__(self, *outputs: Tensor, **batch_fields: Tensor) -> Tensor: ...


@runtime_checkable
class TrainingTask(Protocol):
    """What is learned, `cls(config)`. Optional: `measure(model)` returns metrics at each validation."""

    def dataset(self, split: str) -> "Dataset":
        """The examples of a split."""

    def sampler(self, dataset: Any, *, split: str, seed: int) -> "Sampler":
        """What chooses the videos of each batch."""


@runtime_checkable
class BenchmarkTask(Protocol):
    """What is measured, `cls(config)`. Optional: `check(model)` raises ValueError for a model that does not fit."""

    def evaluate(self, model: Any) -> dict[str, Any]:
        """`{"metrics": {name: value}, "chance": {name: value}, ...}`."""


Task = TrainingTask | BenchmarkTask


@runtime_checkable
class Dataset(Protocol):
    """What training draws from, `cls(config, split)`: `len(dataset)` videos, `dataset[Cluster]` a batch of them.

    Optional: `video_ids`, so that splits are checked for common videos; `vocab_size`, `max_text_len` and `num_labels`,
    which the model is checked against.
    """

    feature_dim: int | None
    """Width of the feature rows; None for frames."""
    pad_id: int
    """The token id that pads texts of several clusters to one length."""

    def __len__(self) -> int: ...

    def __getitem__(self, cluster: Cluster) -> Batch: ...


@runtime_checkable
class Corpus(Protocol):
    """A benchmark's annotations, `cls(config)`, with the features or frames of their videos.

    Tasks ask for more: `clips` (`ClipCorpus`) for retrieval, `videos` and `labels` for classification and segmentation.
    """

    config: Any
    video_ids: list[str]
    missing_videos: list[str]
    """Videos that are annotated, but have no features or can't be read."""

    @property
    def feature_dim(self) -> int | None:
        """Width of the feature rows; None for frames."""

    @property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the annotations and of the features or videos in use."""

    def clip(
        self, video_id: str, start: float = 0.0, end: float | None = None, *, max_video_len: int
    ) -> Float[Tensor, "T F"] | UInt8[Tensor, "T H W 3"]:
        """What a model is given of a video from `start` to `end` (seconds)."""


@runtime_checkable
class Sampler(Protocol):
    """What chooses the videos of each batch, `cls(config, num_videos=, seed=)`.

    Optional: `num_clusters`, from which the length of the learning-rate schedule is derived.
    """

    def clusters(self, epoch: int, embed: Embed) -> Int[np.ndarray, "C K"]:
        """Video indices, one row per cluster: the same on all ranks. `embed()` gives one vector per video."""


@runtime_checkable
class Encoder(Protocol):
    """A frozen feature extractor, `cls(config)`: S seconds of `fps` frames of size x size pixels to S rows."""

    fps: int
    size: int
    feature_dim: int
    fingerprint: str
    """Equal for encoders that give equal features: name, settings and weights."""

    def __call__(self, frames: UInt8[Tensor, "S F H W 3"]) -> Float[Tensor, "S D"]: ...


EncoderSettings = str | Mapping[str, Any] | Encoder
"""An encoder by name, by settings such as `{"_name": "s3d", "weights": ...}`, or built."""
