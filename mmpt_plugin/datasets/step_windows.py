"""Fine-tuning data for step localization: the sliding windows of a video, and the steps of its task as text."""

import torch
from torch.nn.utils.rnn import pad_sequence

from mmpt_plugin.batch import Cluster, StepBatch, pad_video
from mmpt_plugin.corpora.crosstask import CrossTask
from mmpt_plugin.corpora.segments import steps_shown, window_starts
from mmpt_plugin.datasets.labelled_windows import LabelledWindowsConfig
from mmpt_plugin.datasets.splits import build_split
from mmpt_plugin.registry import register_dataset
from mmpt_plugin.tokenizer import load_tokenizer, num_ids, token_ids


@register_dataset("step_windows", dataclass=LabelledWindowsConfig)
class StepWindows(torch.utils.data.Dataset[StepBatch]):
    """Windows with the steps of each second; `dataset[cluster]` is a StepBatch of all windows of one video."""

    pad_id = 0

    def __init__(self, config: LabelledWindowsConfig, split: str = "train") -> None:
        self.config = config
        self.corpus = build_split(config, split, CrossTask, needs="steps")
        self.tokenizer = load_tokenizer(self.corpus.config.tokenizer)
        self.feature_dim = self.corpus.feature_dim
        self.vocab_size = num_ids(self.tokenizer)

    def __len__(self) -> int:
        return len(self.corpus.videos)

    def __getitem__(self, cluster: Cluster) -> StepBatch:
        if len(cluster.videos) != 1:
            raise ValueError("sampler.cluster_size must be 1: videos of different tasks have different steps")
        video = self.corpus.videos[cluster.videos[0]]
        steps = self.corpus.steps[video.group]
        text, text_mask = token_ids(steps, self.tokenizer)
        rows = self.corpus.seconds(video.video_id)
        shown = torch.from_numpy(steps_shown(video.segments, len(rows), len(steps))).float()
        starts = window_starts(len(rows), window=self.config.window, stride=self.config.stride)
        ends = [(start, start + self.config.window) for start in starts]
        windows, window_mask = pad_video([rows[start:end] for start, end in ends])
        return StepBatch(
            video=windows,
            video_mask=window_mask,
            text=text,
            text_mask=text_mask,
            shown=pad_sequence([shown[start:end] for start, end in ends], batch_first=True),
            video_ids=torch.full((len(ends),), cluster.videos[0]),
        )
