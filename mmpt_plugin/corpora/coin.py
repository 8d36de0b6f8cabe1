"""COIN (Tang et al., CVPR 2019): instructional videos, segmented into the steps of 180 tasks."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

from mmpt_plugin.corpora.corpus import Corpus, CorpusConfig
from mmpt_plugin.corpora.readers import check_choice, check_segment, is_count, published_split
from mmpt_plugin.corpora.segments import Segment, SegmentedVideo, check_labels, overlaps, past_the_end
from mmpt_plugin.errors import require
from mmpt_plugin.registry import register_corpus

SPLITS = {"train": "training", "test": "testing"}
NAMING_SUBSET = SPLITS["test"]


@dataclass(kw_only=True)
class COINConfig(CorpusConfig):
    """`annotations` is COIN.json, as published."""

    split: str = "test"
    """train or test: the subsets that the JSON file calls training and testing."""
    allow_overlap: bool = False
    """Accept overlapping segments: the later segment takes precedence, and the result reports their number. If false,
    overlapping segments are an error."""

    RENAMED: ClassVar[dict[str, str]] = {"subset": "split"}


@register_corpus("coin", dataclass=COINConfig)
class COIN(Corpus):
    """COIN's videos with labelled segments: labels are step ids from 1, and 0 is background (Tang et al., CVPR 2019).

    Label names are always read from the testing subset, including its videos without features. Label names that
    contradict each other are a ValueError.
    """

    config: COINConfig

    def __init__(self, config: COINConfig) -> None:
        super().__init__(config)
        self._named: dict[str, list[tuple[str, int, str]]] = {}
        videos = list(self._read())
        self.labels = check_labels(self._named.get(NAMING_SUBSET, []), config.annotations)
        self._check_names()
        self._late: list[str] = []
        self.videos = self.with_features(videos)
        self.num_overlaps = sum(self._check(video) for video in self.videos)
        self.missing_segments = self._left_out(self._late, "segments")

    def _read(self) -> Iterator[SegmentedVideo]:
        """Yield the videos of the split; collect the labels of the split and of the testing subset."""
        path, wanted = self.config.annotations, published_split(self.config.split, SPLITS)
        database = require(self.read_json(path), "database", dict, path)
        subsets = {key: require(video, "subset", str, f"{path}: '{key}'") for key, video in database.items()}
        check_choice("subset", wanted, subsets.values(), path)
        for video_id, subset in subsets.items():
            if subset in (wanted, NAMING_SUBSET):
                where = f"{path}: '{video_id}'"
                annotations = require(database[video_id], "annotation", list, where)
                segments = [self._segment(a, f"{where}, annotation {i}", subset) for i, a in enumerate(annotations)]
                if subset == wanted:
                    yield SegmentedVideo(video_id, tuple(segments), where)

    def _check_names(self) -> None:
        """Check that each label of the split has the same number and name in the testing subset."""
        for where, number, name in self._named.get(published_split(self.config.split, SPLITS), []):
            if number > len(self.labels):
                raise ValueError(
                    f"{where}: label {number}, '{name}', is not in the {NAMING_SUBSET} subset, which defines the "
                    f"labels: it has labels 1 to {len(self.labels)}"
                )
            if self.labels[number - 1] != name:
                known = self.labels[number - 1]
                raise ValueError(
                    f"{where}: label {number} is '{name}', but it is '{known}' in the {NAMING_SUBSET} subset"
                )

    def _segment(self, annotation: Any, where: str, subset: str) -> Segment:
        number = str(require(annotation, "id", (str, int), where))
        if not is_count(number) or int(number) < 1:
            raise ValueError(f"{where}: id '{number}' is not a label id: label ids are integers from 1")
        self._named.setdefault(subset, []).append((where, int(number), require(annotation, "label", str, where)))
        return Segment(*check_segment(annotation.get("segment"), where), int(number))

    def _check(self, video: SegmentedVideo) -> int:
        """Return the number of overlaps; collect segments that start after the end of the features."""
        length = self.num_seconds(video.video_id)
        late = past_the_end(video, length)
        self._late += [
            f"{video.where}: {segment} starts after the end of the features, at {length} s" for segment in late
        ]
        found = overlaps(video)
        if found and not self.config.allow_overlap:
            raise ValueError(
                f"{video.where}: {found[0][0]} and {found[0][1]} overlap "
                "(set dataset.allow_overlap: true to use the later one)"
            )
        return len(found)
