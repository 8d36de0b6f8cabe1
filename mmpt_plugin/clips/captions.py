"""Captions: subtitle files read and checked, their text as word pieces. The tokenizer's home."""

import html
import json
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from transformers import AutoTokenizer, PreTrainedTokenizerBase

TIME = r"(?:(\d+):)?(\d{1,2}):(\d{2})[.,](\d{3})"
TIMING = re.compile(rf"{TIME}\s+-->\s+{TIME}(?:\s.*)?$")
TAG = re.compile(r"<[^>]*>")
SUFFIXES = (".vtt", ".srt", ".jsonl")


@dataclass(frozen=True, slots=True)
class Caption:
    """What is said from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def read_captions(path: Path) -> list[Caption]:
    """The captions of a WebVTT or SubRip file, or of lines `{"start": ..., "end": ..., "text": ...}`."""
    if path.suffix not in SUFFIXES:
        raise ValueError(f"captions {path}: suffix '{path.suffix}' is none of {', '.join(SUFFIXES)}")
    try:
        content = path.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"captions {path} can't be read: {error}") from error
    if path.suffix == ".jsonl":
        return [from_json(line, f"{path}:{n}") for n, line in enumerate(content.splitlines(), 1) if line.strip()]
    if path.suffix == ".vtt" and not content.startswith("WEBVTT"):
        raise ValueError(f"captions {path}: no WebVTT, its first line is not WEBVTT")
    return list(cues(content))


def cues(content: str) -> Iterable[Caption]:
    """The cues of WebVTT or SubRip: in each block, the lines after the timing; blocks without one are notes."""
    for block in re.split(r"\n\s*\n", content.replace("\r\n", "\n").replace("\r", "\n")):
        lines = block.strip().split("\n")
        timing = next((i for i, line in enumerate(lines[:2]) if TIMING.match(line.strip())), None)
        if timing is None:
            continue
        match = TIMING.match(lines[timing].strip())
        assert match is not None
        text = " ".join(html.unescape(TAG.sub("", line)).strip() for line in lines[timing + 1 :])
        yield Caption(seconds(match.groups()[:4]), seconds(match.groups()[4:]), text.strip())


def seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, whole, thousandths = (int(part or 0) for part in parts)
    return hours * 3600 + minutes * 60 + whole + thousandths / 1000


def from_json(line: str, where: str) -> Caption:
    try:
        record = json.loads(line)
        return Caption(float(record["start"]), float(record["end"]), str(record["text"]))
    except (json.JSONDecodeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"captions {where}: a line holds start, end (seconds) and text: {error!r}") from error


def check_captions(captions: Sequence[Caption], *, where: str, duration: float | None = None) -> None:
    """ValueError, naming the record, for captions out of order, of negative or reversed times, or past the video.

    A caption may end up to one second after the video: the last second of a video is seldom a whole one.
    """
    before = 0.0
    for number, caption in enumerate(captions, 1):
        span = f"{where}, caption {number} ({caption.start:g} to {caption.end:g} s)"
        if caption.start < 0:
            raise ValueError(f"{span}: its time is negative")
        if caption.end < caption.start:
            raise ValueError(f"{span}: it ends before it starts")
        if caption.start < before:
            raise ValueError(f"{span}: out of order, the one before starts at {before:g} s")
        if duration is not None and caption.end > duration + 1:
            raise ValueError(f"{span}: the video is shorter, {duration:g} s")
        before = caption.start


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A BERT tokenizer by hub name or folder, which must know [CLS], [SEP] and [PAD], [SEP] right after [CLS]."""
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise ValueError(f"no tokenizer at '{name}': {str(error).splitlines()[0]}") from error
    if tokenizer.cls_token_id is None or tokenizer.sep_token_id is None or tokenizer.pad_token_id is None:
        raise ValueError(f"tokenizer '{name}' is no BERT tokenizer: it lacks [CLS], [SEP] or [PAD]")
    return tokenizer


def tokenize(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_tokens: int = 32
) -> tuple[list[list[int]], int]:
    """Word piece ids of each text without special tokens, the first max_tokens of them; and how many texts were cut."""
    ids = tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
    return [row[:max_tokens] for row in ids], sum(len(row) > max_tokens for row in ids)
