"""Fine-tuning data for retrieval: captioned clips, each paired with one of its captions."""

from dataclasses import dataclass
from typing import Any, ClassVar

import torch

from mmpt_plugin.batch import Batch, Cluster, pad_video
from mmpt_plugin.corpora.corpus import ClipCorpus
from mmpt_plugin.datasets.clip_sampling import ClipLengths
from mmpt_plugin.datasets.splits import FineTuningConfig, build_split
from mmpt_plugin.registry import register_dataset
from mmpt_plugin.tokenizer import load_tokenizer, num_ids, special_ids, token_ids


@dataclass(kw_only=True)
class CaptionedClipsConfig(FineTuningConfig):
    """Fine-tuning on the captioned clips of a corpus, such as `{_name: msrvtt, ...}`."""

    max_video_len: int = ClipLengths.max_video_len
    """Seconds read of a clip, from its start, or the largest number of frames; at most `model.max_video_len`."""
    repeat: int = 1
    """Number of times that an epoch shows each clip, each time with a caption drawn at random."""

    RENAMED: ClassVar[dict[str, str]] = {"max_text_len": "model.max_text_len"}


@register_dataset("captioned_clips", dataclass=CaptionedClipsConfig)
class CaptionedClips(torch.utils.data.Dataset[Batch]):
    """The clips of a corpus; `dataset[cluster]` is a Batch with one pair per clip, its caption drawn at random."""

    def __init__(self, config: CaptionedClipsConfig, split: str = "train") -> None:
        self.config, self.is_training = config, split == "train"
        self.corpus = build_split(config, split, ClipCorpus, needs="clips")
        captions: dict[Any, list[str]] = {}
        for clip in self.corpus.clips:
            captions.setdefault((clip.video_id, clip.start, clip.end), []).append(clip.caption)
        first = {(clip.video_id, clip.start, clip.end): clip for clip in reversed(self.corpus.clips)}
        self.clips = [(first[key], texts) for key, texts in captions.items()]
        self.tokenizer = load_tokenizer(self.corpus.config.tokenizer)
        self.feature_dim = self.corpus.feature_dim
        self.vocab_size = num_ids(self.tokenizer)

    def __len__(self) -> int:
        return len(self.clips) * self.config.repeat

    @property
    def pad_id(self) -> int:
        """The token id of padding; 0 if the tokenizer has none."""
        return int(special_ids(self.tokenizer)["pad_id"] or 0)

    def __getitem__(self, cluster: Cluster) -> Batch:
        rng = cluster.rng()
        chosen = [self.clips[number % len(self.clips)] for number in cluster.videos]
        texts = [texts[rng.integers(len(texts))] for _, texts in chosen]
        length, moves = self.config.max_video_len, rng if self.is_training else None
        rows = [self.corpus.features(clip, max_video_len=length, rng=moves) for clip, _ in chosen]
        text, text_mask = token_ids(texts, self.tokenizer)
        video, video_mask = pad_video(rows)
        return Batch(
            video=video,
            video_mask=video_mask,
            text=text,
            text_mask=text_mask,
            video_ids=torch.tensor(cluster.videos),
        )
