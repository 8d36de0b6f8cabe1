"""Captioned clips in JSON lines, for custom data: one JSON object per line, one feature file per video."""

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus, CorpusConfig
from mmpt_plugin.corpora.readers import check_segment
from mmpt_plugin.errors import require
from mmpt_plugin.files import parse_json
from mmpt_plugin.registry import register_corpus

KEYS: dict[str, Any] = {"video_id": str, "start": (int, float), "end": (int, float), "caption": str}


@dataclass(kw_only=True)
class JSONLConfig(CorpusConfig):
    """`annotations` has lines `{"video_id": ..., "start": ..., "end": ..., "caption": ...}`, times in seconds.

    The optional key `meaning` says which clips mean the same, whatever their captions: a text, or an object of texts
    such as `{"action": "chop", "ingredient": "tomato"}`. It must be in all lines or in none. Retrieval then also ranks
    by meaning. Other keys are ignored.
    """


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
    record = parse_json(line, where)
    video_id, start, end, caption = (require(record, key, kind, where) for key, kind in KEYS.items())
    if not caption.strip():
        raise ValueError(f"{where}: the caption of '{video_id}' is empty")
    return AnnotatedClip(video_id, *check_segment((start, end), where), caption, parse_meaning(record, where))


def parse_meaning(record: dict[str, Any], where: str) -> dict[str, str]:
    """The parts of a line's meaning by name; empty for a line without one. A text is a single part."""
    if "meaning" not in record:
        return {}
    given = record["meaning"]
    parts = {"meaning": given} if isinstance(given, str) else given
    if not (
        isinstance(parts, dict) and parts and all(isinstance(text, str) and text.strip() for text in parts.values())
    ):
        raise ValueError(
            f'{where}: \'meaning\' must be a text or an object of texts, such as {{"action": "chop"}}, got '
            f"{json.dumps(given)}"
        )
    return parts
