"""Annotation files in, with one clear error for what is wrong in them, and their fingerprint."""

import csv
import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from mmpt_plugin.errors import unknown_name


class AnnotationReader:
    """Reads annotation files; all that it read makes up `annotations_sha256`."""

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    @property
    def annotations_sha256(self) -> str:
        """Of the files that were read, one after the other."""
        return self._digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """For a loader's workers: a running digest can't be sent to them, and they don't need it."""
        return vars(self) | {"_digest": None}

    def read_bytes(self, path: str | Path) -> bytes:
        if not Path(path).exists():
            raise DataNotThere(f"no annotations at {path}")
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise ValueError(f"annotations {path} can't be read: {error.strerror}") from error
        self._digest.update(content)
        return content

    def read_text(self, path: str | Path) -> str:
        try:
            return self.read_bytes(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"annotations {path} are not in UTF-8: {error.reason} at byte {error.start}") from error

    def read_lines(self, path: str | Path) -> Iterator[tuple[str, str]]:
        """The place of a line, `file:number`, and the line; empty ones are left out."""
        for number, line in enumerate(self.read_text(path).split("\n"), 1):
            if line.strip():
                yield f"{path}:{number}", line.strip()

    def read_json(self, path: str | Path) -> Any:
        try:
            return json.loads(self.read_text(path))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: not valid JSON: {error}") from error

    def read_records(self, path: str | Path) -> list[tuple[str, Any]]:
        """The place of each record of a JSON list, `file, entry number`, and the record."""
        return entries(self.read_json(path), path)

    def read_csv(
        self, path: str | Path, columns: Sequence[str], *, header: bool = True, delimiter: str = ","
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """The place of a row, and its cells by column; `header` says whether the file itself names its columns."""
        names = None if header else list(columns)
        reader = csv.DictReader(StringIO(self.read_text(path), newline=""), names, delimiter=delimiter)
        try:
            if absent := [column for column in columns if column not in (reader.fieldnames or [])]:
                raise ValueError(f"{path}: no column {absent}. Columns: {reader.fieldnames}")
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if any(row[column] is None for column in columns):
                    raise ValueError(f"{where}: a row has {len(columns)} cells, {', '.join(columns)}")
                if header and any(row.get(None, [])):
                    raise ValueError(
                        f"{where}: more cells than the file has columns; text that holds '{delimiter}' needs quotes"
                    )
                yield where, {column: row[column].strip() for column in columns}
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error


class DataNotThere(ValueError):
    """A corpus whose files are not on this machine, as opposed to one whose files are wrong."""


def entries(content: Any, path: str | Path) -> list[tuple[str, Any]]:
    """The place of each entry of a list that a file holds, and the entry."""
    if not isinstance(content, list):
        raise ValueError(f"{path}: a list of records is expected, got {type(content).__name__}")
    return [(f"{path}, entry {number}", entry) for number, entry in enumerate(content)]


def check_choice(kind: str, given: str, possible: Iterable[str], path: str) -> None:
    """ValueError for a subset that a file does not have."""
    known = sorted(set(possible))
    if given not in known:
        raise ValueError(f"{path}: {unknown_name(kind, given, known)}")


def take(record: Any, key: str, kind: Any, where: str) -> Any:
    """A record's value, of the right kind."""
    value = record.get(key) if isinstance(record, dict) else None
    if not isinstance(value, kind) or isinstance(value, bool):
        raise ValueError(f"{where}: '{key}' is missing or of the wrong type")
    return value


def check_segment(times: Any, where: str) -> tuple[float, float]:
    """Seconds, the start before the end."""
    try:
        start, end = (float(time) for time in times)
    except (TypeError, ValueError):
        raise ValueError(f"{where}: a segment is start and end in seconds, got {times!r}") from None
    if not 0 <= start < end < float("inf"):
        raise ValueError(f"{where}: 0 <= start < end must hold, got {times[0]} and {times[1]}")
    return start, end


def unique(keys: Iterable[tuple[str, str]], what: str) -> list[str]:
    """The keys, each given with its place; a repeated one is an error."""
    seen: dict[str, str] = {}
    for where, key in keys:
        if key in seen:
            raise ValueError(f"{where}: {what} '{key}' is repeated, it is at {seen[key]} too")
        seen[key] = where
    return list(seen)


def own_word(split: str, words: Mapping[str, str]) -> str:
    """What annotations call a split, `{"train": "training", ...}[split]`; that word itself is accepted too."""
    if split not in words and split not in words.values():
        raise ValueError(f"dataset.split must be one of {', '.join(words)}, got '{split}'")
    return words.get(split, split)
