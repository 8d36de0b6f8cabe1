"""ActivityNet Captions (Krishna et al., ICCV 2017), for paragraph retrieval: all sentences of a video as one text."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus, CorpusConfig, whole_video
from mmpt_plugin.corpora.readers import unique
from mmpt_plugin.errors import require
from mmpt_plugin.registry import register_corpus

PREFIX = "v_"  # in front of the YouTube id


@dataclass(kw_only=True)
class ActivityNetConfig(CorpusConfig):
    """`annotations` is train.json or val_1.json: video ids, such as `v_QOlSCBRmfWY`, and for each `{"duration": ...,
    "timestamps": [...], "sentences": [...]}`."""

    video_ids: str | None = None
    """File with the ids of the videos to read: one per line, or a JSON list such as val_ids.json. Null reads all."""


@register_corpus("activitynet", dataclass=ActivityNetConfig)
class ActivityNet(ClipCorpus):
    """ActivityNet's whole videos, each with one paragraph: its sentences in the order of the file, joined by blanks.

    A video file or feature file may be named by the id or by the YouTube id: `v_QOlSCBRmfWY` or `QOlSCBRmfWY`.
    """

    config: ActivityNetConfig

    def __init__(self, config: ActivityNetConfig) -> None:
        super().__init__(config)
        self.clips = self.keep(self._read())

    def file_names(self, video_id: str) -> list[str]:
        """The id, then the YouTube id."""
        return list(dict.fromkeys([video_id, video_id.removeprefix(PREFIX)]))

    def _read(self) -> Iterator[tuple[str, AnnotatedClip]]:
        path = self.config.annotations
        videos = self.read_json(path)
        if not isinstance(videos, dict):
            raise ValueError(f"{path}: expected a mapping of video ids, got {type(videos).__name__}")
        listed = videos if self.config.video_ids is None else self._listed(self.config.video_ids)
        if lacking := [video_id for video_id in listed if video_id not in videos]:
            raise ValueError(f"{path}: no sentences of {len(lacking)} videos of {self.config.video_ids}: {lacking[:5]}")
        for video_id in listed:
            where = f"{path}: '{video_id}'"
            yield whole_video(video_id, paragraph(require(videos[video_id], "sentences", list, where), where), where)

    def _listed(self, path: str) -> list[str]:
        if Path(path).suffix != ".json":
            return unique(self.read_lines(path), "video")
        records = self.read_records(path)
        if wrong := [where for where, video_id in records if not isinstance(video_id, str)]:
            raise ValueError(f"{wrong[0]}: a video id must be a string")
        return unique(records, "video")


def paragraph(sentences: list[Any], where: str) -> str:
    """The sentences joined by blanks, empty ones left out; `where` is their location, which a ValueError names."""
    for number, sentence in enumerate(sentences):
        if not isinstance(sentence, str):
            raise ValueError(f"{where}, sentence {number}: a sentence must be a string, got {sentence!r}")
    return " ".join(stripped for sentence in sentences if (stripped := sentence.strip()))
