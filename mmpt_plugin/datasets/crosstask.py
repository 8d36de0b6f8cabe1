"""CrossTask (Zhukov et al., CVPR 2019): the ordered steps of a task, to be placed in videos of it."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmpt_plugin.datasets.corpus import Corpus, CorpusConfig, check_segment, unique
from mmpt_plugin.datasets.segments import Segment, SegmentedVideo, past_the_end
from mmpt_plugin.registry import register_dataset


@dataclass(kw_only=True)
class CrossTaskConfig(CorpusConfig):
    """`annotations` is the folder crosstask_release."""

    num_train: int = 30
    """Videos of each primary task that its authors' split trains on; the others are the test set."""
    subset: str = "test"
    """train or test."""

    def __post_init__(self) -> None:
        if self.subset not in ("train", "test"):
            raise ValueError(f"dataset.subset must be train or test, got {self.subset}")


@register_dataset("crosstask", dataclass=CrossTaskConfig)
class CrossTask(Corpus):
    """The videos of one subset of the primary tasks; a segment's label is its step, from 0, in `steps[video.group]`.

    The split is its authors': drawn with NumPy's seed 0 among the videos that are there, those of videos_val.csv
    left out. So it is the published one only where no video is missing.
    A video without its annotations is as missing as one without features.
    """

    config: CrossTaskConfig

    def __init__(self, config: CrossTaskConfig, split: str = "test") -> None:
        super().__init__(config, split)
        self.folder = Path(config.annotations)
        self.steps = self._steps()
        listed = list(self._listed())
        without = [video.video_id for video in listed if not self._annotation_file(video).is_file()]
        if without and not config.allow_missing:
            raise ValueError(f"{self.folder}: {len(without)} videos have no annotations: {', '.join(without[:5])}")
        videos = self.with_features(video for video in listed if video.video_id not in without)
        self.missing_videos += without
        self.videos = [self._annotated(video) for video in self._drawn(videos)]
        if not self.videos:
            raise ValueError(f"{self.folder}: no task has more than the {config.num_train} videos to train on")

    def _steps(self) -> dict[str, list[str]]:
        """Of each primary task; the file has blocks of id, title, url, number of steps, steps."""
        path = self.folder / "tasks_primary.txt"
        lines, steps = [line for _, line in self.read_lines(path)], {}
        for begin in range(0, len(lines), 5):
            task, *_, count, names = block = lines[begin : begin + 5]
            steps[task] = names.split(",")
            if len(block) < 5 or count != str(len(steps[task])):
                raise ValueError(f"{path}: task '{task}' is no block of id, title, url, number of steps, steps")
        return steps

    def _listed(self) -> Iterator[SegmentedVideo]:
        """The videos of primary tasks, those to choose a model by left out."""
        validation = {row["video"] for _, row in self._videos_of("videos_val.csv")}
        rows = [(where, row) for where, row in self._videos_of("videos.csv") if row["task"] in self.steps]
        unique(((where, f"{row['task']}, {row['video']}") for where, row in rows), "task and video")
        for where, row in rows:
            if row["video"] not in validation:
                yield SegmentedVideo(row["video"], (), where, row["task"])

    def _videos_of(self, name: str) -> Iterator[tuple[str, dict[str, str]]]:
        return self.read_csv(self.folder / name, ["task", "video", "url"], header=False)

    def _drawn(self, videos: list[SegmentedVideo]) -> Iterator[SegmentedVideo]:
        rng = np.random.RandomState(0)
        for task in dict.fromkeys(video.group for video in videos):
            own = [video for video in videos if video.group == task]
            train = {video.video_id for video in own}
            if len(own) > self.config.num_train:
                train = {own[i].video_id for i in rng.choice(len(own), self.config.num_train, replace=False)}
            yield from (video for video in own if (video.video_id in train) == (self.config.subset == "train"))

    def _annotation_file(self, video: SegmentedVideo) -> Path:
        return self.folder / "annotations" / f"{video.group}_{video.video_id}.csv"

    def _annotated(self, video: SegmentedVideo) -> SegmentedVideo:
        path = self._annotation_file(video)
        segments = []
        for where, row in self.read_csv(path, ["step", "start", "end"], header=False):
            num_steps = len(self.steps[video.group])
            if not row["step"].isdecimal() or not 1 <= int(row["step"]) <= num_steps:
                raise ValueError(f"{where}: step '{row['step']}' is none of task {video.group}'s 1 to {num_steps}")
            segments.append(Segment(*check_segment((row["start"], row["end"]), where), int(row["step"]) - 1))
        found = SegmentedVideo(video.video_id, tuple(segments), str(path), video.group)
        length = self.num_seconds(video.video_id)
        if (late := past_the_end(found, length)) and not self.config.allow_missing:
            raise ValueError(f"{path}: {late[0]} starts after the features, which are of {length} s")
        return found
