"""Read and check caption files."""

import html
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from mmpt_plugin.errors import require
from mmpt_plugin.files import parse_json

SUFFIXES = (".vtt", ".srt", ".jsonl")

TIME = r"(?:(\d{1,6}):)?([0-5]?\d):([0-5]\d)[.,](\d{3})"
TIMES = re.compile(rf"{TIME}\s*-->\s*{TIME}(?:\s.*)?")
MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")
NO_CUE = ("WEBVTT", "NOTE", "STYLE", "REGION")


@dataclass(frozen=True, slots=True)
class Caption:
    """The text spoken from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def read_captions(path: Path) -> list[Caption]:
    """Read captions from WebVTT, SubRip, or lines `{"start": ..., "end": ..., "text": ...}`, all in UTF-8.

    Markup and line breaks are removed from the text. A line that cannot be parsed is a ValueError that names it.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"captions {path}: suffix '{path.suffix}' is not one of {', '.join(SUFFIXES)}")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"captions {path} are not in UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise ValueError(f"captions {path} can't be read: {error.strerror}") from error
    if suffix == ".jsonl":
        return [from_json(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if suffix == ".srt":
        return list(cues([line.strip() for line in lines], path))
    if re.match(r"WEBVTT(\s|$)", lines[0]) is None:
        raise ValueError(f"captions {path}: not WebVTT: its first line is not WEBVTT")
    return list(cues(lines, path, no_cue=NO_CUE))


def cues(lines: Sequence[str], path: Path, *, no_cue: Sequence[str] = ()) -> Iterator[Caption]:
    """One caption for each block of lines, except blocks whose first word is in `no_cue`.

    Empty lines separate blocks. In WebVTT, a line of blanks does not: YouTube's captions contain such lines.
    """
    for empty, numbered in groupby(enumerate(lines, 1), key=lambda line: not line[1]):
        if empty:
            continue
        numbers, block = zip(*numbered, strict=True)
        arrows = [i for i, line in enumerate(block) if "-->" in line]
        if not arrows and block[0].split(maxsplit=1)[:1] in [[word] for word in no_cue]:
            continue
        times = TIMES.fullmatch(block[arrows[0]].strip()) if arrows in ([0], [1]) else None
        if times is None:
            where = numbers[arrows[-1] if arrows else 0]
            raise ValueError(
                f"captions {path}:{where}: not a cue: expected 00:01.500 --> 00:03.000 or similar, then text"
            )
        text = html.unescape(MARKUP.sub("", " ".join(block[arrows[0] + 1 :])))
        yield Caption(seconds(times.groups()[:4]), seconds(times.groups()[4:]), " ".join(text.split()))


def seconds(parts: Sequence[str | None]) -> float:
    """A time from its hours, minutes, seconds and milliseconds; a missing part counts as 0."""
    hours, minutes, whole, thousandths = (int(part or 0) for part in parts)
    return hours * 3600 + minutes * 60 + whole + thousandths / 1000


def from_json(line: str, where: str) -> Caption:
    """Parse a JSON line; ValueError, naming the location `where`, if a field is missing or has the wrong type."""
    record = parse_json(line, f"captions {where}")
    start, end = (float(require(record, key, (int, float), f"captions {where}")) for key in ("start", "end"))
    return Caption(start, end, " ".join(require(record, "text", str, f"captions {where}").split()))


def check_captions(captions: Sequence[Caption], *, where: str, duration: float | None = None) -> None:
    """ValueError, naming the caption, for captions out of order, with invalid times, or after the end of the video.

    A caption must start within the video. It may end up to one second later, because the last second of a video is
    usually incomplete.
    """
    before = 0.0
    for number, caption in enumerate(captions, 1):
        span = f"{where}, caption {number} ({caption.start:g} to {caption.end:g} s)"
        if not (math.isfinite(caption.start) and math.isfinite(caption.end)):
            raise ValueError(f"{span}: its times must be finite")
        if caption.start < 0:
            raise ValueError(f"{span}: its time is negative")
        if caption.end < caption.start:
            raise ValueError(f"{span}: it ends before it starts")
        if caption.start < before:
            raise ValueError(f"{span}: out of order, the previous caption starts at {before:g} s")
        if duration is not None and (caption.start > duration or caption.end > duration + 1):
            raise ValueError(f"{span}: the video has only {duration:g} s")
        before = caption.start
