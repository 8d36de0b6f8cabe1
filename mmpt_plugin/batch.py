"""Batches, the input of models: padded clip pairs with masks.

B pairs, T seconds of video, L text tokens, F feature width.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

import numpy as np
import torch
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor

NO_LABEL = -100  # the default ignore_index of torch's cross entropy


class Tensors:
    """Base class of all batches; a subclass is a dataclass of tensors with corresponding rows."""

    video: Tensor

    def __len__(self) -> int:
        return len(self.video)

    def to(self, device: torch.device | str) -> Any:
        """A copy with every tensor on `device`."""
        return type(self)(**{name: tensor.to(device) for name, tensor in self.tensors().items()})

    def tensors(self) -> dict[str, Any]:
        """The tensors as a dict name -> tensor, for trainers that can move dicts between devices."""
        return {name: tensor for name, tensor in vars(self).items() if tensor is not None}

    def packed(self) -> Any:
        """With the places of its masks, where it has fields for them: to find them later waits for the GPU."""
        own = vars(self)
        places = {name: places_of(own[name.replace("_places", "_mask")]) for name in own if name.endswith("_places")}
        return type(self)(**own | places)


@dataclass(frozen=True)
class Batch(Tensors):
    """B pairs of a video clip and a text clip; row i of `video` matches row i of `text`."""

    video: Float[Tensor, "B T F"] | UInt8[Tensor, "B T H W 3"]
    """One feature row per second, or T frames of RGB; zeros where the mask is False."""
    video_mask: Bool[Tensor, "B T"]
    """False where a row or frame is padding."""
    text: Int[Tensor, "B L"]
    """Token ids, `[CLS] w1..wn [SEP] [PAD]..`"""
    text_mask: Bool[Tensor, "B L"]
    """False where a token is padding."""
    video_ids: Int[Tensor, " B"]
    """Dataset index of the video that each pair is from."""
    video_places: Int[Tensor, " N"] | None = None
    """The positions of the True values in the flattened video_mask, ascending, if they are known; see `packed`. Models
    that compute no padding need them."""
    text_places: Int[Tensor, " M"] | None = None
    """As video_places, of text_mask."""


@dataclass(frozen=True)
class LabelledBatch(Tensors):
    """B windows of video with one label per second."""

    video: Float[Tensor, "B T F"]
    video_mask: Bool[Tensor, "B T"]
    labels: Int[Tensor, "B T"]
    """NO_LABEL where the mask is False."""
    video_ids: Int[Tensor, " B"]


@dataclass(frozen=True)
class StepBatch(Tensors):
    """W windows of one video, and the texts of the K steps of its task."""

    video: Float[Tensor, "W T F"]
    video_mask: Bool[Tensor, "W T"]
    text: Int[Tensor, "K L"]
    text_mask: Bool[Tensor, "K L"]
    shown: Float[Tensor, "W T K"]
    """1 where a second shows a step."""
    video_ids: Int[Tensor, " W"]
    video_places: Int[Tensor, " N"] | None = None
    """As in `Batch`."""
    text_places: Int[Tensor, " M"] | None = None
    """As in `Batch`."""


def pad_text(
    starts: Int[np.ndarray, " B"],
    lengths: Int[np.ndarray, " B"],
    tokens: Int[np.ndarray, " N"],
    *,
    cls_id: int | None,
    sep_id: int,
    pad_id: int,
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """`[CLS] tokens[start : start + length] [SEP] [PAD]..` for every row, and a mask that is False for padding.

    If cls_id is None, rows begin with their first token.
    """
    before = int(cls_id is not None)
    place = np.arange(int(lengths.max()) + 1 + before)
    source = starts[:, None] + place - before  # (B, L)
    ids = tokens[np.clip(source, 0, max(len(tokens) - 1, 0))] if len(tokens) else np.zeros_like(source)
    end = lengths[:, None] + before
    ids = np.where(place < end, ids, np.where(place == end, sep_id, pad_id))
    if cls_id is not None:
        ids[:, 0] = cls_id
    return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(place <= end)


def places_of(mask: Bool[Tensor, "B S"]) -> Int[Tensor, " N"]:
    """The positions of the True values in the flattened mask, ascending."""
    return mask.flatten().nonzero().squeeze(1)


def length_mask(lengths: Int[np.ndarray, " B"], size: int) -> Bool[Tensor, "B T"]:
    """True for the first `lengths[i]` positions of row i."""
    return torch.from_numpy(np.arange(size) < lengths[:, None])


def pad_video(
    clips: Sequence[Float[Tensor, "_ F"]] | Sequence[UInt8[Tensor, "_ H W 3"]], *, length: int = 0
) -> tuple[Float[Tensor, "B T F"] | UInt8[Tensor, "B T H W 3"], Bool[Tensor, "B T"]]:
    """Clips padded to the longest, or to `length` if that is longer, and a mask that is False for padding."""
    video = torch.nn.utils.rnn.pad_sequence(list(clips), batch_first=True)
    video = widened(video, max(video.shape[1], length), 0)
    return video, length_mask(np.array([len(clip) for clip in clips]), video.shape[1])


class Cluster(NamedTuple):
    """Videos whose clips are compared in one batch, and everything that the sampling of their clips depends on.

    A cluster carries its own seed and epoch, so its clips depend neither on the loader worker that samples them nor on
    the number of processes.
    """

    seed: int
    """Seed of the run."""
    epoch: int
    """Epoch of the cluster."""
    number: int
    """Position in the epoch."""
    videos: tuple[int, ...]
    """Dataset indices of the videos."""

    def rng(self) -> np.random.Generator:
        """A random generator that depends only on seed, epoch and number."""
        return np.random.default_rng([self.seed, self.epoch, self.number])


AnyBatch = TypeVar("AnyBatch", Batch, LabelledBatch, StepBatch)


def concatenate(batches: Sequence[AnyBatch], *, pad_id: int) -> AnyBatch:
    """Concatenate batches into one, padded to the longest."""
    if len(batches) == 1:
        return batches[0]
    if isinstance(batches[0], StepBatch):
        raise ValueError("dataset.batch_size must be 1: videos of different tasks have different steps")
    fill = {"text": pad_id, "labels": NO_LABEL}

    def rows(name: str) -> Tensor:
        tensors: list[Tensor] = [batch.tensors()[name] for batch in batches]
        if tensors[0].ndim == 1:
            return torch.cat(tensors)
        width = max(tensor.shape[1] for tensor in tensors)
        return torch.cat([widened(tensor, width, fill.get(name, 0)) for tensor in tensors])

    return type(batches[0])(**{name: rows(name) for name in batches[0].tensors() if not name.endswith("_places")})


def widened(tensor: Tensor, width: int, fill: int) -> Tensor:
    """(B, S, ..) -> (B, width, ..)"""
    size, length, *rest = tensor.shape
    return torch.cat([tensor, tensor.new_full((size, width - length, *rest), fill)], dim=1)
