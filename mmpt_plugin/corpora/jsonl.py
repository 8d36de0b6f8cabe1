"""Annotated clips for everyone's own data: one JSON object a line, a feature file a video."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus, CorpusConfig, check_segment, take
from mmpt_plugin.registry import register_corpus

KEYS: dict[str, Any] = {"video_id": str, "start": (int, float), "end": (int, float), "caption": str}


@dataclass(kw_only=True)
class JSONLConfig(CorpusConfig):
    """`annotations` has lines `{"video_id": ..., "start": ..., "end": ..., "caption": ...}`, times in seconds."""


@register_corpus("jsonl", dataclass=JSONLConfig)
class JSONLClips(ClipCorpus):
    """Captioned clips of a JSON-lines file, in its order; the format for data of one's own."""

    def __init__(self, config: JSONLConfig, split: str = "test") -> None:
        super().__init__(config, split)
        self.clips = self.keep(self._read())

    def _read(self) -> Iterator[tuple[str, AnnotatedClip]]:
        for where, line in self.read_lines(self.config.annotations):
            yield where, parse_line(line, where)


def parse_line(line: str, where: str) -> AnnotatedClip:
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON: {error}") from error
    video_id, start, end, caption = (take(record, key, kind, where) for key, kind in KEYS.items())
    if not caption.strip():
        raise ValueError(f"{where}: the caption of '{video_id}' is empty")
    return AnnotatedClip(video_id, *check_segment((start, end), where), caption)
