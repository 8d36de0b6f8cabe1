"""CrossTask (Zhukov et al., CVPR 2019): videos of a task, and the ordered steps to localize in them."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import numpy as np

from mmpt_plugin.corpora.corpus import Corpus, CorpusConfig
from mmpt_plugin.corpora.readers import check_segment, is_count, unique
from mmpt_plugin.corpora.segments import Segment, SegmentedVideo, past_the_end
from mmpt_plugin.files import inside
from mmpt_plugin.registry import register_corpus


@dataclass(kw_only=True)
class CrossTaskConfig(CorpusConfig):
    """`annotations` is the folder crosstask_release, as published."""

    num_train: int = 30
    """Training videos drawn from each primary task; the remaining videos are the test set. 30 is the authors' split."""
    split: str = "test"
    """train, valid or test. train and test are drawn at random; valid is the fixed list of videos_val.csv."""

    RENAMED: ClassVar[dict[str, str]] = {"subset": "split"}

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.split not in ("train", "valid", "test"):
            raise ValueError(f"dataset.split must be one of train, valid, test, got '{self.split}'")
        if self.num_train < 1:
            raise ValueError(f"dataset.num_train must be at least 1, got {self.num_train}")


@register_corpus("crosstask", dataclass=CrossTaskConfig)
class CrossTask(Corpus):
    """CrossTask's primary tasks; a segment's label is the index of its step, from 0, in `steps[video.group]`.

    The split is drawn as in the authors' code: with NumPy's seed 0, task by task in the order of videos.csv, from the
    videos that videos_val.csv does not list. Only videos with features are drawn, so with missing videos the split
    differs from the published one. A video without annotations counts as missing.
    """

    config: CrossTaskConfig

    def __init__(self, config: CrossTaskConfig) -> None:
        super().__init__(config)
        self.folder = Path(config.annotations)
        self.steps = self._steps()
        tasks, listed = self._listed()
        without = [video.video_id for video in listed if not self._annotation_file(video).is_file()]
        if without and not config.allow_missing:
            raise ValueError(f"{self.folder}: {len(without)} videos have no annotations: {', '.join(without[:5])}")
        videos = self.with_features(video for video in listed if video.video_id not in without)
        self.missing_videos += without
        chosen = videos if config.split == "valid" else self._drawn(videos, tasks)
        self._late: list[str] = []
        self.videos = [self._annotated(video) for video in chosen]
        if not self.videos:
            raise ValueError(
                f"{self.folder}: no task has more videos than the {config.num_train} training videos of "
                "dataset.num_train"
            )
        self.video_ids = list(dict.fromkeys(video.video_id for video in self.videos))
        self.missing_segments = self._left_out(self._late, "segments")

    def _steps(self) -> dict[str, list[str]]:
        """The steps of each primary task; the file has blocks of id, title, url, number of steps, steps."""
        path = self.folder / "tasks_primary.txt"
        lines, steps = [line for _, line in self.read_lines(path)], {}
        for begin in range(0, len(lines), 5):
            task, *rest = lines[begin : begin + 5]
            steps[task] = rest[-1].split(",") if rest else []
            if len(rest) < 4 or rest[2] != str(len(steps[task])):
                raise ValueError(f"{path}: task '{task}' is not a block of id, title, url, number of steps, steps")
        return steps

    def _listed(self) -> tuple[list[str], list[SegmentedVideo]]:
        """The primary tasks in the order of videos.csv, and the videos to validate on or to draw from."""
        of_validation = self._videos_of("videos_val.csv")
        if self.config.split == "valid":
            return [], of_validation
        videos = self._videos_of("videos.csv")
        held_out = {(video.group, video.video_id) for video in of_validation}
        tasks = list(dict.fromkeys(video.group for video in videos))
        return tasks, [video for video in videos if (video.group, video.video_id) not in held_out]

    def _videos_of(self, name: str) -> list[SegmentedVideo]:
        """The videos of primary tasks that a file lists."""
        rows = self.read_csv(self.folder / name, ["task", "video", "url"], header=False)
        own = [(where, row) for where, row in rows if row["task"] in self.steps]
        unique(((where, f"{row['task']}, {row['video']}") for where, row in own), "task and video")
        return [SegmentedVideo(row["video"], (), where, row["task"]) for where, row in own]

    def _drawn(self, videos: list[SegmentedVideo], tasks: list[str]) -> Iterator[SegmentedVideo]:
        rng = np.random.RandomState(0)
        for task in tasks:
            own = [video for video in videos if video.group == task]
            train = {video.video_id for video in own}
            if len(own) > self.config.num_train:
                train = {own[i].video_id for i in rng.choice(len(own), self.config.num_train, replace=False)}
            yield from (video for video in own if (video.video_id in train) == (self.config.split == "train"))

    def _annotation_file(self, video: SegmentedVideo) -> Path:
        try:
            return inside(self.folder / "annotations", f"{video.group}_{video.video_id}.csv")
        except ValueError as error:
            raise ValueError(f"{video.where}: {error}") from error

    def _annotated(self, video: SegmentedVideo) -> SegmentedVideo:
        path = self._annotation_file(video)
        segments = []
        for where, row in self.read_csv(path, ["step", "start", "end"], header=False):
            num_steps = len(self.steps[video.group])
            if not is_count(row["step"]) or not 1 <= int(row["step"]) <= num_steps:
                raise ValueError(
                    f"{where}: step '{row['step']}' is out of range: task {video.group} has steps 1 to {num_steps}"
                )
            segments.append(Segment(*check_segment((row["start"], row["end"]), where), int(row["step"]) - 1))
        found = SegmentedVideo(video.video_id, tuple(segments), str(path), video.group)
        length = self.num_seconds(video.video_id)
        late = past_the_end(found, length)
        self._late += [f"{path}: {segment} starts after the end of the features, at {length} s" for segment in late]
        return found
