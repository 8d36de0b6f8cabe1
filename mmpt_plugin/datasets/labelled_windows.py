"""Fine-tuning data for action segmentation: sliding windows with one label per second."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmpt_plugin.batch import NO_LABEL, Cluster, LabelledBatch, pad_video
from mmpt_plugin.corpora.coin import COIN
from mmpt_plugin.corpora.segments import frame_labels, window_starts
from mmpt_plugin.datasets.splits import FineTuningConfig, build_split
from mmpt_plugin.registry import register_dataset


@dataclass(kw_only=True)
class LabelledWindowsConfig(FineTuningConfig):
    """The sliding windows that long videos are cut into for training."""

    window: int = 32
    """Length of a window in seconds; at most `model.max_video_len`."""
    stride: int = 8
    """Seconds from the start of one window to the next."""


@register_dataset("labelled_windows", dataclass=LabelledWindowsConfig)
class LabelledWindows(torch.utils.data.Dataset[LabelledBatch]):
    """Windows with one label per second; `dataset[cluster]` is a LabelledBatch of all windows of its videos."""

    pad_id = 0

    def __init__(self, config: LabelledWindowsConfig, split: str = "train") -> None:
        self.config = config
        self.corpus = build_split(config, split, COIN, needs="videos")
        self.feature_dim = self.corpus.feature_dim

    def __len__(self) -> int:
        return len(self.corpus.videos)

    @property
    def num_labels(self) -> int:
        """Number of labels, including 0 for background."""
        return len(self.corpus.labels) + 1

    def __getitem__(self, cluster: Cluster) -> LabelledBatch:
        features: list[Tensor] = []
        labels: list[Tensor] = []
        owners: list[int] = []
        for number in cluster.videos:
            annotated = self.corpus.videos[number]
            rows = self.corpus.seconds(annotated.video_id)
            marked = torch.from_numpy(frame_labels(annotated.segments, len(rows)))
            for start in window_starts(len(rows), window=self.config.window, stride=self.config.stride):
                features.append(rows[start : start + self.config.window])
                labels.append(marked[start : start + self.config.window])
                owners.append(number)
        video, video_mask = pad_video(features)
        return LabelledBatch(
            video=video,
            video_mask=video_mask,
            labels=pad_sequence(labels, batch_first=True, padding_value=NO_LABEL),
            video_ids=torch.tensor(owners),
        )
