"""Fine-tuning data of segmented videos: sliding windows with a label a second."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from mmpt_plugin.clips.batch import NO_LABEL, Cluster, LabelledBatch
from mmpt_plugin.datasets.captioned_clips import FineTuningConfig, build_split
from mmpt_plugin.datasets.segments import painted, window_starts
from mmpt_plugin.registry import register_dataset


@dataclass(kw_only=True)
class LabelledWindowsConfig(FineTuningConfig):
    window: int = 32
    """Seconds that the model sees together."""
    stride: int = 8


@register_dataset("labelled_windows", dataclass=LabelledWindowsConfig)
class LabelledWindows(torch.utils.data.Dataset[LabelledBatch]):
    """`dataset[cluster]` is a LabelledBatch of all windows of its videos."""

    pad_id = 0

    def __init__(self, config: LabelledWindowsConfig, split: str = "train") -> None:
        self.config = config
        self.corpus = build_split(config, split)
        self.feature_dim = self.corpus.seconds(self.corpus.videos[0].video_id, 0, 1).shape[1]

    def __len__(self) -> int:
        return len(self.corpus.videos)

    def __getitem__(self, cluster: Cluster) -> LabelledBatch:
        features: list[Tensor] = []
        labels: list[Tensor] = []
        owners: list[int] = []
        for number in cluster.videos:
            video = self.corpus.videos[number]
            rows = self.corpus.seconds(video.video_id)
            marked = torch.from_numpy(painted(video.segments, len(rows)))
            for start in window_starts(len(rows), window=self.config.window, stride=self.config.stride):
                features.append(rows[start : start + self.config.window])
                labels.append(marked[start : start + self.config.window])
                owners.append(number)
        padded = pad_sequence(labels, batch_first=True, padding_value=NO_LABEL)
        return LabelledBatch(
            video=pad_sequence(features, batch_first=True),
            video_mask=padded != NO_LABEL,
            labels=padded,
            video_ids=torch.tensor(owners),
        )
