"""DiDeMo (Hendricks et al., ICCV 2017): descriptions of moments, to find a moment in its video or a video by all."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmpt_plugin.datasets.corpus import AnnotatedClip, ClipCorpus, Corpus, CorpusConfig, take, unique, whole_video
from mmpt_plugin.registry import register_dataset

NUM_CHUNKS = 6


@dataclass(frozen=True)
class Moment:
    """A description, and the first and last five-second chunk that each annotator saw it in."""

    video_id: str
    description: str
    times: tuple[tuple[int, int], ...]


@dataclass(kw_only=True)
class DiDeMoConfig(CorpusConfig):
    """`annotations` is test_data.json; features may be named `x.npy` or, with the video's suffix, `x.mp4.npy`."""


@register_dataset("didemo_moments", dataclass=DiDeMoConfig)
class DiDeMoMoments(Corpus):
    """Every description with its video."""

    def __init__(self, config: DiDeMoConfig, split: str = "test") -> None:
        super().__init__(config, split)
        self.moments = self.with_features(read_moments(self))


@register_dataset("didemo", dataclass=DiDeMoConfig)
class DiDeMo(ClipCorpus):
    """Every video with one paragraph: its descriptions in the file's order."""

    def __init__(self, config: DiDeMoConfig, split: str = "test") -> None:
        super().__init__(config, split)
        paragraphs: dict[str, list[str]] = {}
        for moment in read_moments(self):
            paragraphs.setdefault(moment.video_id, []).append(moment.description.strip())
        self.clips = self.keep(self._paragraphs(paragraphs))

    def _paragraphs(self, paragraphs: dict[str, list[str]]) -> Iterator[tuple[str, AnnotatedClip]]:
        for video_id, sentences in paragraphs.items():
            yield whole_video(video_id, " ".join(sentences), f"{self.config.annotations}: '{video_id}'")


def read_moments(corpus: Corpus) -> list[Moment]:
    path = corpus.config.annotations
    records = [(f"{path}, entry {number}", record) for number, record in enumerate(corpus.read_json(path))]
    unique(((where, str(take(record, "annotation_id", int, where))) for where, record in records), "annotation_id")
    return [moment(record, f"{where} (annotation_id {record['annotation_id']})") for where, record in records]


def moment(record: dict[str, Any], where: str) -> Moment:
    video_id, description = (take(record, key, str, where) for key in ("video", "description"))
    try:
        times = tuple((int(first), int(last)) for first, last in take(record, "times", list, where))
    except TypeError:
        times = ()
    if not times or not all(0 <= first <= last < NUM_CHUNKS for first, last in times):
        raise ValueError(f"{where}: times are pairs 0 <= first <= last < {NUM_CHUNKS}, got {record['times']}")
    return Moment(video_id, description, times)
