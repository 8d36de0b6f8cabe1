"""COIN (Tang et al., CVPR 2019): instructional videos segmented into the steps of 180 tasks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmpt_plugin.corpora.corpus import Corpus, CorpusConfig, check_choice, check_segment, take
from mmpt_plugin.corpora.segments import Segment, SegmentedVideo, check_labels, overlaps, past_the_end
from mmpt_plugin.registry import register_corpus

NAMING_SUBSET = "testing"


@dataclass(kw_only=True)
class COINConfig(CorpusConfig):
    """`annotations` is COIN.json, as published."""

    subset: str = NAMING_SUBSET
    """Videos to read: training or testing."""
    allow_overlap: bool = False
    """Accept overlapping segments: the later one counts, and the result reports how many there are. Otherwise they are
    an error."""


@register_corpus("coin", dataclass=COINConfig)
class COIN(Corpus):
    """COIN's videos with labelled segments: labels are step ids from 1, and 0 is background (Tang et al., CVPR 2019).

    Label names are always those of the testing subset, including its videos without features.
    """

    config: COINConfig

    def __init__(self, config: COINConfig, split: str = "test") -> None:
        super().__init__(config, split)
        self._named: dict[str, list[tuple[str, int, str]]] = {}
        videos = list(self._read())
        self.labels = check_labels(self._named.get(NAMING_SUBSET, []), config.annotations)
        self._check_names()
        self._late: list[str] = []
        self.videos = self.with_features(videos)
        self.num_overlaps = sum(self._check(video) for video in self.videos)
        self.missing_segments = self._left_out(self._late, "segments")

    def _read(self) -> Iterator[SegmentedVideo]:
        """The subset's videos; labels are collected of all subsets."""
        path, wanted = self.config.annotations, self.config.subset
        database = take(self.read_json(path), "database", dict, path)
        subsets = {key: take(video, "subset", str, f"{path}: '{key}'") for key, video in database.items()}
        check_choice("subset", wanted, subsets.values(), path)
        for video_id, subset in subsets.items():
            if subset in (wanted, NAMING_SUBSET):
                where = f"{path}: '{video_id}'"
                annotations = take(database[video_id], "annotation", list, where)
                segments = [self._segment(a, f"{where}, annotation {i}", subset) for i, a in enumerate(annotations)]
                if subset == wanted:
                    yield SegmentedVideo(video_id, tuple(segments), where)

    def _check_names(self) -> None:
        """A label of the subset that is read is one of the testing subset, by the same name."""
        for where, number, name in self._named.get(self.config.subset, []):
            if number > len(self.labels):
                raise ValueError(
                    f"{where}: label {number}, '{name}', is not in the {NAMING_SUBSET} subset, whose names count: "
                    f"it has labels 1 to {len(self.labels)}"
                )
            if self.labels[number - 1] != name:
                known = self.labels[number - 1]
                raise ValueError(f"{where}: label {number} is '{name}', but '{known}' in the {NAMING_SUBSET} subset")

    def _segment(self, annotation: Any, where: str, subset: str) -> Segment:
        number = str(take(annotation, "id", (str, int), where))
        if not number.isdecimal() or int(number) < 1:
            raise ValueError(f"{where}: id '{number}' is not a label's, they count from 1")
        self._named.setdefault(subset, []).append((where, int(number), take(annotation, "label", str, where)))
        return Segment(*check_segment(annotation.get("segment"), where), int(number))

    def _check(self, video: SegmentedVideo) -> int:
        """How many segments overlap."""
        length = self.num_seconds(video.video_id)
        late = past_the_end(video, length)
        self._late += [
            f"{video.where}: {segment} starts after its features, which are of {length} s" for segment in late
        ]
        found = overlaps(video)
        if found and not self.config.allow_overlap:
            raise ValueError(
                f"{video.where}: {found[0][0]} and {found[0][1]} overlap "
                "(dataset.allow_overlap: true lets the later one count)"
            )
        return len(found)
