"""Captioned clips in JSON lines, for custom data: one JSON object per line, one feature file per video."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus, CorpusConfig
from mmpt_plugin.corpora.readers import check_segment, require
from mmpt_plugin.registry import register_corpus

KEYS: dict[str, Any] = {"video_id": str, "start": (int, float), "end": (int, float), "caption": str}


@dataclass(kw_only=True)
class JSONLConfig(CorpusConfig):
    """`annotations` has lines `{"video_id": ..., "start": ..., "end": ..., "caption": ...}`, times in seconds."""


@register_corpus("jsonl", dataclass=JSONLConfig)
class JSONLClips(ClipCorpus):
    """Captioned clips of a JSON lines file, in the order of its lines; the format for custom data."""

    def __init__(self, config: JSONLConfig) -> None:
        super().__init__(config)
        self.clips = self.keep(self._read())

    def _read(self) -> Iterator[tuple[str, AnnotatedClip]]:
        for where, line in self.read_lines(self.config.annotations):
            yield where, parse_line(line, where)


def parse_line(line: str, where: str) -> AnnotatedClip:
    """The clip of one line; `where` is its location, which a ValueError names."""
    try:
        record = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not valid JSON: {error}") from error
    video_id, start, end, caption = (require(record, key, kind, where) for key, kind in KEYS.items())
    if not caption.strip():
        raise ValueError(f"{where}: the caption of '{video_id}' is empty")
    return AnnotatedClip(video_id, *check_segment((start, end), where), caption)
