"""Pre-training data: overlapped pairs of a video clip and a text clip, sampled from shards.

V videos, P pairs of each, B pairs in all, T seconds or frames, F feature width, N tokens, M caption offsets.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int, UInt8
from torch import Tensor

from mmpt_plugin.batch import Batch, Cluster, length_mask, pad_text, pad_video
from mmpt_plugin.datasets.clip_sampling import ClipLengths, aligned_video_clips, overlapped_video_clips, text_clips
from mmpt_plugin.datasets.splits import of_split
from mmpt_plugin.registry import register_dataset
from mmpt_plugin.shards.format import INDEX, Shards, VideoRecord, read_index
from mmpt_plugin.video.frame_cache import open_videos
from mmpt_plugin.video.sparse_frames import FramesConfig, Videos, read_clips


@dataclass(kw_only=True)
class OverlappedClipsConfig(ClipLengths):
    """Pre-training pairs sampled from shards; the defaults are the paper's (VideoCLIP, sections 3.3 and 5.2)."""

    splits: dict[str, Any] = field(default_factory=dict)
    """Folder of the shards of each split: `{train: FOLDER, valid: FOLDER}`."""
    pairs_per_video: int = 16
    """Number of pairs sampled from each video of a batch."""
    overlap: bool = True
    """Sample each video clip around a random second of its text clip. If false, the video clip has the times of its
    text clip, as a baseline."""
    caption_shift: float = 0.0
    """Seconds added to the times of all captions; positive values delay captions. For experiments on alignment."""
    videos: str | None = None
    """Folder of the video files or cached frames of all splits. Needed with `frames`."""
    frames: FramesConfig | None = None
    """Read frames of `videos` instead of the shards' features, such as `{num_frames: 12, size: 224}`."""
    verify_checksums: bool = True
    """Verify the checksum of every shard when it is opened, which reads all data once. Set to false if that takes too
    long."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pairs_per_video < 1:
            raise ValueError(f"dataset.pairs_per_video must be at least 1, got {self.pairs_per_video}")
        if self.frames is not None and self.videos is None:
            raise ValueError("dataset.frames needs dataset.videos, a folder of video files or of cached frames")


@register_dataset("overlapped_clips", dataclass=OverlappedClipsConfig)
class OverlappedClips(torch.utils.data.Dataset[Batch]):
    """Overlapped pairs sampled from shards; `dataset[cluster]` is a Batch of `pairs_per_video` pairs of each video."""

    def __init__(self, config: OverlappedClipsConfig, split: str = "train") -> None:
        self.config = config
        folder = of_split(config.splits, split)
        if not isinstance(folder, str | Path):
            raise ValueError(f"dataset.splits.{split} must be a folder of shards, got {folder!r}")
        self.shards = Shards(Path(folder), verify=config.verify_checksums)
        if self.shards.feature_dim == 0 and config.frames is None:
            raise ValueError(
                f"the shards in {self.shards.folder} contain no features: set dataset.frames to read videos"
            )
        self.videos: Videos | None = None
        if config.frames is not None and config.videos is not None:
            self.videos = open_videos(Path(config.videos))
            lacking = [video_id for video_id in self.shards.video_ids if video_id not in self.videos]
            if lacking:
                raise ValueError(
                    f"{len(lacking)} of the {len(self.shards)} videos of {self.shards.folder} can't be read in "
                    f"{config.videos}: {', '.join(lacking[:5])}"
                )

    @staticmethod
    def sizes(section: Mapping[str, Any], split: str) -> dict[str, int]:
        """The model's sizes that the shards of a project's section `dataset` determine; {} if they are not there."""
        splits = section.get("splits")
        folder = splits.get(split) if isinstance(splits, Mapping) else None
        if not isinstance(folder, str) or not (Path(folder) / INDEX).is_file():
            return {}
        index = read_index(Path(folder))
        found = {"feature_dim": index.feature_dim, "vocab_size": index.tokenizer.get("vocab_size")}
        return {key: value for key, value in found.items() if value}  # shards for frames have no features

    def __len__(self) -> int:
        """Number of videos."""
        return len(self.shards)

    @property
    def feature_dim(self) -> int | None:
        """Width of the feature rows; None for frames."""
        return self.shards.feature_dim if self.videos is None else None

    @property
    def pad_id(self) -> int:
        """The token id of padding."""
        return self.shards.pad_id

    @property
    def vocab_size(self) -> int | None:
        """Size of the tokenizer's vocabulary; None if the shards do not record it."""
        return self.shards.tokenizer.get("vocab_size")

    @property
    def max_text_len(self) -> int:
        """Largest number of tokens of a text clip, without [CLS] and [SEP]."""
        return self.config.max_text_len

    @property
    def video_ids(self) -> list[str]:
        """Ids of the videos, in the order of their indices."""
        return self.shards.video_ids

    def __getitem__(self, cluster: Cluster) -> Batch:
        return self.draw(cluster.videos, cluster.rng())

    def draw(self, videos: tuple[int, ...], rng: np.random.Generator) -> Batch:
        """Sample `pairs_per_video` pairs of each video; the pairs of one video are consecutive."""
        records = [self.shards[video] for video in videos]
        pairs = self.config.pairs_per_video
        times = np.concatenate([record.caption_times for record in records]) + np.float32(self.config.caption_shift)
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
        special: Any = {"cls_id": self.shards.cls_id, "sep_id": self.shards.sep_id, "pad_id": self.shards.pad_id}
        text, text_mask = pad_text(offsets[begin], num_tokens, tokens, **special)
        if self.videos is None:
            video = cut_features(records, start, stop)
            video_mask = length_mask(stop - start, video.shape[1])
        else:
            spans = np.stack([start, stop], axis=1).reshape(len(records), pairs, 2)
            video, video_mask = pad_video(self.read_frames(records, spans))
        return Batch(
            video=video,
            video_mask=video_mask,
            text=text,
            text_mask=text_mask,
            video_ids=torch.from_numpy(np.repeat(np.array(videos, dtype=np.int64), pairs)),
        )

    def read_frames(
        self, records: list[VideoRecord], spans: Int[np.ndarray, "V P 2"]
    ) -> list[UInt8[Tensor, "_ H W 3"]]:
        """The frames of each video's clips, in order; `spans` are start and end in seconds."""
        assert self.videos is not None
        assert self.config.frames is not None
        clips = []
        for record, own in zip(records, spans.astype(float).tolist(), strict=True):
            clips += read_clips(
                self.videos, record.video_id, [(start, stop) for start, stop in own], self.config.frames
            )
        return clips


def flat_tokens(records: list[VideoRecord]) -> tuple[Int[np.ndarray, " M"], Int[np.ndarray, " N"]]:
    """Offsets and concatenated tokens of several videos: caption i has tokens[offsets[i] : offsets[i + 1]]."""
    counts = np.concatenate([record.token_counts for record in records])
    offsets = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    return offsets, np.concatenate([record.tokens for record in records])


def cut_features(
    records: list[VideoRecord], start: Int[np.ndarray, " B"], stop: Int[np.ndarray, " B"]
) -> Float[Tensor, "B T F"]:
    """Rows start <= second < stop of each pair's video, padded with zeros; all videos have equally many pairs."""
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
