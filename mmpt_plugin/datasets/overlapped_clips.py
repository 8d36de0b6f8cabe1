"""Pre-training data: overlapped pairs of a video and a text clip, drawn from shards for every cluster of videos."""

from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from mmpt_plugin.clips.batch import Batch, Cluster, length_mask, pad_text
from mmpt_plugin.clips.sampling import ClipLengths, aligned_video_clips, overlapped_video_clips, text_clips
from mmpt_plugin.datasets.splits import of_split
from mmpt_plugin.features.shards import Shards, VideoRecord
from mmpt_plugin.registry import register_dataset


@dataclass(kw_only=True)
class OverlappedClipsConfig(ClipLengths):
    splits: dict[str, Any] = field(default_factory=dict)
    """Split -> folder of shards, {train: ..., valid: ...}."""
    pairs_per_video: int = 16
    overlap: bool = True
    """False aligns each video clip with the times of its text clip, for comparison."""
    verify_checksums: bool = True
    """Read every shard once at opening; turn off where that takes too long and was done once."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs_per_video < 1:
            raise ValueError(f"dataset.pairs_per_video must be at least 1, got {self.pairs_per_video}")


@register_dataset("overlapped_clips", dataclass=OverlappedClipsConfig)
class OverlappedClips(torch.utils.data.Dataset[Batch]):
    """`dataset[cluster]` is a Batch: pairs_per_video pairs of each of its videos (VideoCLIP, section 3.3)."""

    def __init__(self, config: OverlappedClipsConfig, split: str = "train") -> None:
        self.config = config
        self.shards = Shards(Path(of_split(config.splits, split)), verify=config.verify_checksums)

    def __len__(self) -> int:
        """The number of videos."""
        return len(self.shards)

    @property
    def feature_dim(self) -> int:
        return self.shards.feature_dim

    @property
    def pad_id(self) -> int:
        return self.shards.pad_id

    def __getitem__(self, cluster: Cluster) -> Batch:
        return self.draw(cluster.videos, cluster.rng())

    def draw(self, videos: tuple[int, ...], rng: np.random.Generator) -> Batch:
        """pairs_per_video pairs of each video, one video after the other."""
        records = [self.shards[video] for video in videos]
        pairs = self.config.pairs_per_video
        times = np.concatenate([record.caption_times for record in records])
        offsets, tokens = flat_tokens(records)
        num_captions = np.array([len(record.caption_times) for record in records])
        last = np.repeat(np.cumsum(num_captions), pairs)
        first = last - np.repeat(num_captions, pairs)
        begin, end = text_clips(times, offsets, first, last, lengths=self.config, rng=rng)

        duration = np.repeat([len(record.features) for record in records], pairs)
        spoken = times[begin, 0], times[end - 1, 1]
        if self.config.overlap:
            start, stop = overlapped_video_clips(*spoken, duration, lengths=self.config, rng=rng)
        else:
            start, stop = aligned_video_clips(*spoken, duration, lengths=self.config)

        num_tokens = np.minimum(offsets[end] - offsets[begin], self.config.max_text_len)
        special = {"cls_id": self.shards.cls_id, "sep_id": self.shards.sep_id, "pad_id": self.shards.pad_id}
        text, text_mask = pad_text(offsets[begin], num_tokens, tokens, **special)
        video = cut_features(records, start, stop)
        return Batch(
            video=video,
            video_mask=length_mask(stop - start, video.shape[1]),
            text=text,
            text_mask=text_mask,
            video_ids=torch.from_numpy(np.repeat(np.array(videos, dtype=np.int64), pairs)),
        )


def flat_tokens(records: list[VideoRecord]) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " N"]]:
    """The tokens of several videos, one after the other, and where each caption's begin."""
    counts = np.concatenate([record.token_counts for record in records])
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return offsets, np.concatenate([record.tokens for record in records])


def cut_features(
    records: list[VideoRecord], start: Int[np.ndarray, " B"], stop: Int[np.ndarray, " B"]
) -> Float[Tensor, "B T F"]:
    """Rows start <= second < stop of each pair's video, zeros after; equally many pairs a video."""
    pairs = len(start) // len(records)
    width, longest = records[0].features.shape[1], int((stop - start).max())
    clips = np.empty((len(start), longest, width), dtype=records[0].features.dtype)
    cuts = zip(clips, start.tolist(), stop.tolist(), strict=True)
    for record in records:
        features = record.features
        for clip, a, b in islice(cuts, pairs):
            clip[: b - a] = features[a:b]
            clip[b - a :] = 0
    return torch.from_numpy(clips)
