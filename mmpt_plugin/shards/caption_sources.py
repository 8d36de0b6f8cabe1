"""Caption sources: a folder of subtitles, HowTo100M's caption files, or one file of JSON lines.

A source yields one `Narration` for each requested video, in its own order, with bounded memory.
"""

import json
import re
from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Iterator
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from mmpt_plugin.errors import HALF_PAIR, shortened
from mmpt_plugin.files import files_below, inside, integer, open_text, parse_json
from mmpt_plugin.shards.captions import SUFFIXES, Caption, from_json, read_captions
from mmpt_plugin.shards.plain_pickle import read_plain_pickle

CHARACTERS_CHUNK = 1 << 20  # characters of JSON read at first; a video of HowTo100M has about ten thousand
LANGUAGE = re.compile(r"[A-Za-z]{2,3}(-\w{2,})*")  # en, en-US, zh-Hans, en-orig
LONGEST = 1 << 26  # characters; no video has as many


@dataclass(frozen=True)
class Narration:
    """The captions of one video."""

    video_id: str
    where: str
    """The file, for error messages."""
    read: Callable[[], list[Caption]]
    """Read the captions; ValueError if they cannot be parsed."""
    by_machine: bool = False
    """Whether they are from speech recognition, whose captions repeat words and may continue after the video ends."""


class Source(ABC):
    """Yields the narrations of the requested videos; a subclass implements `__call__`."""

    def lacking(self, video_ids: Iterable[str]) -> dict[str, str]:
        """Video id -> why it has no captions, for problems known before reading."""
        return {}

    @abstractmethod
    def __call__(self, video_ids: Collection[str]) -> Iterator[Narration]:
        """The narrations of those requested videos that the source has."""


def caption_source(path: Path) -> Source:
    """The source for a path: a folder of {video_id}.vtt, .srt or .jsonl; HowTo100M's captions as .json or .pickle; or a
    .jsonl file whose lines have a video_id."""
    if path.is_dir():
        return CaptionFolder(path)
    if not path.is_file():
        raise ValueError(f"no captions at {path}")
    if path.suffix in (".json", ".pickle", ".pkl"):
        return HowTo100MCaptions(path)
    if path.suffix == ".jsonl":
        return CaptionLines(path)
    raise ValueError(f"captions {path}: expected a folder, or a file .json, .pickle, .pkl or .jsonl")


@dataclass(frozen=True)
class CaptionFolder(Source):
    """`{video_id}.vtt`, `.srt` or `.jsonl`; or `{video_id}.en.vtt`, if there is only one language.

    A file that is not there is searched in the subfolders.
    """

    folder: Path

    def lacking(self, video_ids: Iterable[str]) -> dict[str, str]:
        """See `Source.lacking`; also reports videos with several files, such as of several languages."""
        names = " or ".join(SUFFIXES)
        reasons = {}
        for video_id, paths in self.files_of(video_ids).items():
            if not paths:
                reasons[video_id] = f"no {video_id} with {names} in {self.folder}"
            elif len(paths) > 1:
                several = ", ".join(path.relative_to(self.folder).as_posix() for path in paths)
                reasons[video_id] = f"several files in {self.folder}, {several}: keep one"
        return reasons

    def __call__(self, video_ids: Collection[str]) -> Iterator[Narration]:
        for video_id, paths in self.files_of(video_ids).items():
            if len(paths) == 1:
                (path,) = paths
                yield Narration(video_id, str(path), lambda path=path: read_captions(path))  # type: ignore[misc]

    def files_of(self, video_ids: Iterable[str]) -> dict[str, list[Path]]:
        """A video's file without a language or, if there is none, its files of all languages.

        A file that belongs to another requested video, such as `a.en.vtt` to video `a.en`, does not count.
        """
        wanted = {video_id: inside(self.folder, video_id) for video_id in video_ids}
        places = set(wanted.values())
        found = {}
        own, translated = files_of_places({place.parent for place in places}, places)
        for video_id, place in wanted.items():
            found[video_id] = [own[place]] if place in own else translated[place]
        if lost := {video_id for video_id, paths in found.items() if not paths and "/" not in video_id}:
            folders = {path.parent for path in files_below(self.folder)} - {self.folder}
            own, translated = files_of_places(folders, places)
            for files in ({place: [path] for place, path in own.items()}, translated):
                deeper: dict[str, list[Path]] = defaultdict(list)
                for place, paths in files.items():
                    deeper[place.name] += paths
                for video_id in lost:
                    found[video_id] = found[video_id] or deeper[video_id]
        return found


def files_of_places(
    folders: Iterable[Path], places: Collection[Path]
) -> tuple[dict[Path, Path], dict[Path, list[Path]]]:
    """The caption files in folders, by their path without suffix, and those of a language, by the path without it.

    A file whose path without suffix is one of `places` is not of a language.
    """
    own, translated = {}, defaultdict(list)
    for folder in sorted(folders):
        for name, path in caption_files(folder).items():
            own[folder / name] = path
            before, _, language = name.rpartition(".")
            if before and LANGUAGE.fullmatch(language) and folder / name not in places:
                translated[folder / before].append(path)
    return own, translated


def caption_files(folder: Path) -> dict[str, Path]:
    """Name without suffix -> file; of several files, the one whose suffix is first in SUFFIXES."""
    if not folder.is_dir():
        return {}
    files = (path for path in sorted(folder.iterdir()) if path.suffix.lower() in SUFFIXES)
    ordered = sorted(files, key=lambda path: SUFFIXES.index(path.suffix.lower()), reverse=True)
    return {path.name.removesuffix(path.suffix): path for path in ordered}


@dataclass(frozen=True)
class CaptionLines(Source):
    """Lines `{"video_id": ..., "start": ..., "end": ..., "text": ...}`, with the lines of a video consecutive."""

    path: Path

    def __call__(self, video_ids: Collection[str]) -> Iterator[Narration]:
        wanted, seen = set(video_ids), set()
        with open_text(self.path) as file:
            numbered = ((f"{self.path}:{number}", line) for number, line in enumerate(file, 1) if line.strip())
            for video_id, lines in groupby(numbered, key=lambda line: video_of(*line)):
                here = list(lines)
                if video_id in seen:
                    raise ValueError(f"{here[0][0]}: video '{video_id}' again; its lines must be consecutive")
                seen.add(video_id)
                if video_id in wanted:
                    yield Narration(
                        video_id,
                        f"{self.path}, {video_id}",
                        lambda here=here: [from_json(line, where) for where, line in here],  # type: ignore[misc]
                    )


def video_of(where: str, line: str) -> str:
    """The video id in a JSON line; ValueError, naming the location `where`, if it has none."""
    record = parse_json(line, f"captions {where}")
    if not isinstance(record, dict) or "video_id" not in record:
        raise ValueError(f"captions {where}: a line needs video_id, start, end and text, got {shortened(record)}")
    return str(record["video_id"])


@dataclass(frozen=True)
class HowTo100MCaptions(Source):
    """raw_caption.json, `{video_id: {"start": [...], "end": [...], "text": [...]}}`, or the same as a pickle.

    JSON is read in chunks; a pickle must be read completely.
    """

    path: Path

    def __call__(self, video_ids: Collection[str]) -> Iterator[Narration]:
        wanted = set(video_ids)
        for video_id, columns in self.videos():
            if video_id in wanted:
                where = f"{self.path}, {video_id}"
                yield Narration(
                    video_id,
                    where,
                    lambda columns=columns, where=where: from_columns(columns, where),  # type: ignore[misc]
                    by_machine=True,
                )

    def videos(self) -> Iterator[tuple[str, Any]]:
        """Each video id with its columns; ValueError if a pickle cannot be read or is not a dict."""
        if self.path.suffix == ".json":
            yield from stream_object(self.path)
            return
        content = read_plain_pickle(self.path)
        if not isinstance(content, dict):
            raise ValueError(f"captions {self.path} hold a {type(content).__name__}, expected video id -> captions")
        yield from content.items()


def from_columns(columns: Any, where: str) -> list[Caption]:
    """The captions in the file's order, which is not always sorted by start; those with NaN as text are skipped."""
    try:
        starts, ends, texts = (columns[key] for key in ("start", "end", "text"))
        rows = zip(starts, ends, texts, strict=True)
        captions = [Caption(float(start), float(end), text) for start, end, text in rows if isinstance(text, str)]
        "".join(caption.text for caption in captions).encode()
        return captions
    except UnicodeEncodeError:
        raise ValueError(f"captions {where}: a text has {HALF_PAIR}") from None
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"captions {where}: expected lists start, end and text of equal length: {error!r}") from error


def stream_object(path: Path) -> Iterator[tuple[str, Any]]:
    """The members of a JSON object that is too large to read at once.

    Accepts NaN, which HowTo100M's captions may contain and other streaming JSON parsers reject.
    """
    decoder = json.JSONDecoder(parse_int=integer)
    with open_text(path) as file:
        text, at = file.read(CHARACTERS_CHUNK), 0

        def parse(parser: Callable[[str, int], tuple[Any, int]]) -> Any:
            """Parse at the current position, and read more of the file as needed."""
            nonlocal text, at
            while True:
                try:
                    value, at = parser(text, at)
                    return value
                except RecursionError:
                    raise ValueError(f"{path}: not valid JSON: it is nested too deep") from None
                except (json.JSONDecodeError, IndexError) as error:
                    # Twice as much each time: a long value is parsed from its start again.
                    more = file.read(max(CHARACTERS_CHUNK, len(text) - at)) if len(text) - at < LONGEST else ""
                    if not more:
                        raise ValueError(f"{path} is not a complete JSON object: {error}") from error
                    text, at = text[at:] + more, 0
                except ValueError as error:  # of `integer`
                    raise ValueError(f"{path}: {error}") from error

        if parse(symbol) != "{":
            raise ValueError(f"{path} is not a JSON object of video id -> captions")
        while (token := parse(symbol)) != "}":
            if token == ",":
                continue
            at -= 1
            key = parse(decoder.raw_decode)
            if parse(symbol) != ":":
                raise ValueError(f"{path} is not a JSON object: no colon after {key!r}")
            parse(symbol)
            at -= 1
            yield str(key), parse(decoder.raw_decode)


def symbol(text: str, at: int) -> tuple[str, int]:
    """The next character that is not white space, and the position after it; IndexError at the end."""
    while text[at].isspace():
        at += 1
    return text[at], at + 1


def within(captions: Iterable[Caption], duration: float) -> list[Caption]:
    """The captions that start within the video and have a positive duration, with their ends cut to the video."""
    return [
        Caption(max(c.start, 0.0), min(c.end, duration), c.text)
        for c in captions
        if np.isfinite([c.start, c.end]).all() and c.start < duration and c.end > max(c.start, 0.0)
    ]
