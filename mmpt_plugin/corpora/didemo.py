"""DiDeMo (Hendricks et al., ICCV 2017): described moments, for moment localization and for paragraph retrieval."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus, Corpus, CorpusConfig, whole_video
from mmpt_plugin.corpora.readers import unique
from mmpt_plugin.errors import require, shortened
from mmpt_plugin.files import without_suffix
from mmpt_plugin.registry import register_corpus

NUM_CHUNKS = 6
MAX_SECONDS = 31.0
"""Seconds of a video that are used for retrieval: the annotators saw its first 30 seconds; CLIP4Clip reads 31."""


@dataclass(frozen=True)
class Moment:
    """A description, and the first and last five-second chunk that each annotator chose for it."""

    video_id: str
    description: str
    times: tuple[tuple[int, int], ...]


@dataclass(kw_only=True)
class DiDeMoConfig(CorpusConfig):
    """`annotations` is train_data.json, val_data.json or test_data.json, as published. A video's id is its file name
    without the suffix."""

    video_ids: str | None = None
    """File with the names of the videos to read, one per line, with or without suffix. Null reads all."""


class DiDeMoVideos(Corpus):
    """DiDeMo's videos; ids have no suffix, because some videos are listed under two names, `x.mov` and `x.mp4`.

    A feature file may be named `x.npy`, or by any listed name of the video, such as `x.mp4.npy`.
    """

    config: DiDeMoConfig

    def __init__(self, config: DiDeMoConfig) -> None:
        super().__init__(config)
        self._names: dict[str, list[str]] = {}

    def file_names(self, video_id: str) -> list[str]:
        """The id, then the names in the annotations."""
        return [video_id, *self._names.get(video_id, [])]

    def read_moments(self) -> list[Moment]:
        """The moments of the listed videos, in the order of the file; ValueError if a listed video has none."""
        path = self.config.annotations
        records = self.read_records(path)
        unique(
            ((where, str(require(record, "annotation_id", int, where))) for where, record in records), "annotation_id"
        )
        found = []
        listed = self._listed()
        for where, record in records:
            one = moment(record, f"{where} (annotation_id {record['annotation_id']})")
            if listed is None or one.video_id in listed:
                found.append(one)
                names = self._names.setdefault(one.video_id, [])
                names += [name for name in (record["video"],) if name not in names]
        if lacking := [video_id for video_id in listed or () if video_id not in self._names]:
            raise ValueError(
                f"{path}: no descriptions of {len(lacking)} videos of {self.config.video_ids}: {lacking[:5]}"
            )
        return found

    def _listed(self) -> list[str] | None:
        if self.config.video_ids is None:
            return None
        lines = self.read_lines(self.config.video_ids)
        return list(dict.fromkeys(without_suffix(name) for name in unique(lines, "video")))


@register_corpus("didemo_moments", dataclass=DiDeMoConfig)
class DiDeMoMoments(DiDeMoVideos):
    """DiDeMo for moment localization: each description with the chunks that the annotators chose."""

    def __init__(self, config: DiDeMoConfig) -> None:
        super().__init__(config)
        self.moments = self.with_features(self.read_moments())


@register_corpus("didemo", dataclass=DiDeMoConfig)
class DiDeMo(DiDeMoVideos, ClipCorpus):
    """DiDeMo for retrieval: each video has one paragraph, its descriptions joined in the order of the file.

    Only the first 31 seconds of a video are used, because what follows the first 30 was not annotated.
    """

    def __init__(self, config: DiDeMoConfig) -> None:
        super().__init__(config)
        paragraphs: dict[str, list[str]] = {}
        for moment in self.read_moments():
            paragraphs.setdefault(moment.video_id, []).append(moment.description.strip())
        whole = self.keep(self._paragraphs(paragraphs))
        self.clips = [replace(clip, end=min(clip.end, MAX_SECONDS)) for clip in whole]

    def _paragraphs(self, paragraphs: dict[str, list[str]]) -> Iterator[tuple[str, AnnotatedClip]]:
        for video_id, sentences in paragraphs.items():
            yield whole_video(video_id, " ".join(sentences), f"{self.config.annotations}: '{video_id}'")


def moment(record: dict[str, Any], where: str) -> Moment:
    """The moment of one record; `where` is its location, which a ValueError names."""
    video_id, description = (require(record, key, str, where) for key in ("video", "description"))
    given = require(record, "times", list, where)
    try:
        times = tuple((int(first), int(last)) for first, last in given)
    except (TypeError, ValueError, OverflowError):
        times = ()
    if not times or not all(0 <= first <= last < NUM_CHUNKS for first, last in times):
        raise ValueError(f"{where}: times must be pairs 0 <= first <= last < {NUM_CHUNKS}, got {shortened(given)}")
    return Moment(without_suffix(video_id), description, times)
