"""Fine-tuning data of clips with captions: a benchmark's own training clips, each with one of its captions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from mmpt_plugin.clips.batch import Batch, Cluster, pad_text, pad_video
from mmpt_plugin.clips.captions import load_tokenizer, special_ids, tokenize
from mmpt_plugin.clips.sampling import ClipLengths
from mmpt_plugin.datasets.splits import FineTuningConfig, build_split
from mmpt_plugin.registry import register_dataset


@dataclass(kw_only=True)
class CaptionedClipsConfig(FineTuningConfig):
    max_text_len: int = ClipLengths.max_text_len
    max_video_len: int = ClipLengths.max_video_len
    """Seconds of a clip that are read, its first ones."""
    repeat: int = 1
    """How often an epoch shows each clip."""


@register_dataset("captioned_clips", dataclass=CaptionedClipsConfig)
class CaptionedClips(torch.utils.data.Dataset[Batch]):
    """`dataset[cluster]` is a Batch of its clips, each with one of its captions, any with equal chance."""

    def __init__(self, config: CaptionedClipsConfig, split: str = "train") -> None:
        self.config = config
        self.corpus = build_split(config, split)
        captions: dict[Any, list[str]] = {}
        for clip in self.corpus.clips:
            captions.setdefault((clip.video_id, clip.start, clip.end), []).append(clip.caption)
        first = {(clip.video_id, clip.start, clip.end): clip for clip in reversed(self.corpus.clips)}
        self.clips = [(first[key], texts) for key, texts in captions.items()]
        self.tokenizer = load_tokenizer(self.corpus.config.tokenizer)
        self.special: Any = special_ids(self.tokenizer)
        self.feature_dim = self.corpus.feature_dim

    def __len__(self) -> int:
        return len(self.clips) * self.config.repeat

    @property
    def pad_id(self) -> int:
        return int(self.special["pad_id"])

    def __getitem__(self, cluster: Cluster) -> Batch:
        rng = cluster.rng()
        chosen = [self.clips[number % len(self.clips)] for number in cluster.videos]
        rows = [self.corpus.features(clip, max_video_len=self.config.max_video_len) for clip, _ in chosen]
        texts = [texts[rng.integers(len(texts))] for _, texts in chosen]
        ids, _ = tokenize(texts, self.tokenizer, max_tokens=self.config.max_text_len)
        lengths = np.array([len(row) for row in ids])
        tokens = np.array([token for row in ids for token in row], dtype=np.int64)
        text, text_mask = pad_text(np.cumsum(lengths) - lengths, lengths, tokens, **self.special)
        video, video_mask = pad_video(rows)
        return Batch(
            video=video,
            video_mask=video_mask,
            text=text,
            text_mask=text_mask,
            video_ids=torch.tensor(cluster.videos),
        )
