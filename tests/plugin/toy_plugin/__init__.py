"""A third party's user directory: a data set, a task and a criterion of its own, trained by fairseq-train."""

from dataclasses import dataclass

import numpy as np
import torch
from torch import nn

import mmpt_plugin  # noqa: F401  the components below need its registries, fairseq its bridge
from mmpt_plugin.batch import Batch, Cluster
from mmpt_plugin.registry import register_criterion, register_dataset, register_task
from mmpt_plugin.tasks import VideoTextPretraining, VideoTextPretrainingConfig


@dataclass(kw_only=True)
class SignalsConfig:
    num_videos: int = 30


@register_dataset("signals", dataclass=SignalsConfig)
class Signals:
    """Video v is a constant direction, its text the token 5 + v."""

    feature_dim, pad_id = 4, 0

    def __init__(self, config: SignalsConfig, split: str = "train") -> None:
        self.directions = np.random.default_rng(0).standard_normal((config.num_videos, 4)).astype(np.float32)

    def __len__(self) -> int:
        return len(self.directions)

    def __getitem__(self, cluster: Cluster) -> Batch:
        videos = np.repeat(np.array(cluster.videos), 2)
        noise = cluster.rng().standard_normal((len(videos), 3, 4)).astype(np.float32) * 0.1
        text = np.stack([np.full(len(videos), 2), 5 + videos, np.full(len(videos), 3)], axis=1)
        return Batch(
            video=torch.from_numpy(self.directions[videos][:, None] + noise),
            video_mask=torch.ones(len(videos), 3, dtype=torch.bool),
            text=torch.from_numpy(text),
            text_mask=torch.ones(text.shape, dtype=torch.bool),
            video_ids=torch.from_numpy(videos),
        )


@dataclass(kw_only=True)
class SignalsTaskConfig(VideoTextPretrainingConfig):
    greeting: str = "hello"


@register_task("signal_pretraining", dataclass=SignalsTaskConfig)
class SignalPretraining(VideoTextPretraining):
    pass


@dataclass(kw_only=True)
class HingeConfig:
    margin: float = 1.0


@register_criterion("toy_hinge", dataclass=HingeConfig)
class Hinge(nn.Module):
    """Every right pair must beat every wrong one by a margin."""

    def __init__(self, config: HingeConfig) -> None:
        super().__init__()
        self.margin = config.margin

    def forward(self, video: torch.Tensor, text: torch.Tensor) -> torch.Tensor:
        scores = text @ video.T
        wrong = ~torch.eye(len(scores), dtype=torch.bool)
        return (self.margin + scores - scores.diag()[:, None]).clamp(min=0)[wrong].mean()
