"""COIN (Tang et al., CVPR 2019): instructional videos segmented into the steps of 180 tasks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmpt_plugin.datasets.corpus import Corpus, CorpusConfig, check_segment, take
from mmpt_plugin.datasets.segments import Segment, SegmentedVideo, check_labels, overlaps, past_the_end
from mmpt_plugin.registry import register_dataset


@dataclass(kw_only=True)
class COINConfig(CorpusConfig):
    """`annotations` is COIN.json."""

    subset: str = "testing"
    """training or testing."""
    allow_overlap: bool = False
    """Where segments overlap the later one counts, and their number is reported, instead of refusing to run."""


@register_dataset("coin", dataclass=COINConfig)
class COIN(Corpus):
    """The videos of one subset; a segment's label is its id, from 1, and 0 is what has none.

    The labels' names are those of the testing subset, videos without features included.
    """

    config: COINConfig

    def __init__(self, config: COINConfig, split: str = "test") -> None:
        super().__init__(config, split)
        self._named: list[tuple[str, int, str]] = []
        videos = list(self._read(config.subset))
        self.labels = check_labels(self._named, config.annotations)
        self.videos = self.with_features(videos)
        self.num_overlaps = sum(self._check(video) for video in self.videos)

    def _read(self, split: str) -> Iterator[SegmentedVideo]:
        path = self.config.annotations
        for video_id, video in take(self.read_json(path), "database", dict, path).items():
            where = f"{path}: '{video_id}'"
            if take(video, "subset", str, where) == split:
                annotations = take(video, "annotation", list, where)
                segments = [self._segment(a, f"{where}, annotation {i}") for i, a in enumerate(annotations)]
                yield SegmentedVideo(video_id, tuple(segments), where)

    def _segment(self, annotation: Any, where: str) -> Segment:
        number = str(take(annotation, "id", (str, int), where))
        if not number.isdecimal() or int(number) < 1:
            raise ValueError(f"{where}: id '{number}' is no label's, they count from 1")
        self._named.append((where, int(number), take(annotation, "label", str, where)))
        return Segment(*check_segment(annotation.get("segment"), where), int(number))

    def _check(self, video: SegmentedVideo) -> int:
        """How many segments overlap, in a video whose segments all start within its features."""
        length = self.num_seconds(video.video_id)
        if (late := past_the_end(video, length)) and not self.config.allow_missing:
            raise ValueError(f"{video.where}: {late[0]} starts after its features, which are of {length} s")
        found = overlaps(video)
        if found and not self.config.allow_overlap:
            raise ValueError(
                f"{video.where}: {found[0][0]} and {found[0][1]} overlap "
                "(dataset.allow_overlap: true lets the later one count)"
            )
        return len(found)
