"""Readers of annotation files: text, JSON and CSV. Errors name the file and the line or entry."""

import csv
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from io import StringIO
from pathlib import Path
from typing import Any

from mmpt_plugin.errors import unknown_name
from mmpt_plugin.files import parse_json
from mmpt_plugin.shards.plain_pickle import read_plain_pickle


class AnnotationReader:
    """Reads annotation files, and computes the checksum of all that it reads.

    Missing files are a `DataNotThere`; files that can't be read or parsed are a ValueError.
    """

    def __init__(self) -> None:
        self._digest = hashlib.sha256()

    @property
    def annotations_sha256(self) -> str:
        """SHA-256 of the files read so far, in reading order."""
        return self._digest.hexdigest()

    def __getstate__(self) -> dict[str, Any]:
        """For data loader workers: a hash object can't be pickled, and workers don't need it."""
        return vars(self) | {"_digest": None}

    def read_bytes(self, path: str | Path) -> bytes:
        """The content of a file, which becomes part of `annotations_sha256`."""
        if not Path(path).exists():
            raise DataNotThere(f"no annotations at {path}")
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise ValueError(f"annotations {path} can't be read: {error.strerror}") from error
        self._digest.update(content)
        return content

    def read_text(self, path: str | Path) -> str:
        """The text of a UTF-8 file, without a byte order mark."""
        try:
            return self.read_bytes(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"annotations {path} are not in UTF-8: {error.reason} at byte {error.start}") from error

    def read_lines(self, path: str | Path) -> Iterator[tuple[str, str]]:
        """Yield the location of a line, `file:number`, and the stripped line; empty lines are skipped."""
        for number, line in enumerate(self.read_text(path).split("\n"), 1):
            if line.strip():
                yield f"{path}:{number}", line.strip()

    def read_json(self, path: str | Path) -> Any:
        """The content of a JSON file; a key that occurs twice in one object is a ValueError."""

        def once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
            values: dict[str, Any] = {}
            for key, value in pairs:
                if key in values:
                    raise ValueError(f"key '{key}' is repeated")
                values[key] = value
            return values

        return parse_json(self.read_text(path), str(path), object_pairs_hook=once)

    def read_pickle(self, path: str | Path) -> Any:
        """The content of a pickle of plain containers, strings and numbers; no code in it is run."""
        self.read_bytes(path)
        return read_plain_pickle(Path(path))

    def read_records(self, path: str | Path) -> list[tuple[str, Any]]:
        """The location, `file, entry number`, and the record of each entry of a JSON list."""
        return entries(self.read_json(path), path)

    def read_csv(
        self, path: str | Path, columns: Sequence[str], *, header: bool = True, delimiter: str = ","
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """Yield the location of a row, `file:line`, and its cells by column.

        `header` is True if the first row of the file has the names of the columns.
        """
        names = None if header else list(columns)
        reader = csv.DictReader(StringIO(self.read_text(path), newline=""), names, delimiter=delimiter)
        try:
            if absent := [column for column in columns if column not in (reader.fieldnames or [])]:
                raise ValueError(f"{path}: no column {absent}. Columns: {reader.fieldnames}")
            for row in reader:
                where = f"{path}:{reader.line_num}"
                if any(row[column] is None for column in columns):
                    raise ValueError(f"{where}: too few cells, expected {len(columns)}: {', '.join(columns)}")
                if header and any(row.get(None, [])):
                    raise ValueError(
                        f"{where}: more cells than columns; put text that contains '{delimiter}' in quotes"
                    )
                yield where, {column: row[column].strip() for column in columns}
        except csv.Error as error:
            raise ValueError(f"{path}:{reader.line_num}: not valid CSV: {error}") from error


class DataNotThere(ValueError):
    """The files of a corpus are not on this machine; files that are wrong raise a plain ValueError."""


def entries(content: Any, path: str | Path) -> list[tuple[str, Any]]:
    """The location and the value of each entry of the list that a file contains."""
    if not isinstance(content, list):
        raise ValueError(f"{path}: expected a list of records, got {type(content).__name__}")
    return [(f"{path}, entry {number}", entry) for number, entry in enumerate(content)]


def check_choice(kind: str, given: str, possible: Iterable[str], path: str) -> None:
    """ValueError, with the closest match, if `given` is not one of the `possible` values in a file."""
    known = sorted(set(possible))
    if given not in known:
        raise ValueError(f"{path}: {unknown_name(kind, given, known)}")


def check_segment(times: Any, where: str) -> tuple[float, float]:
    """Start and end in seconds; ValueError unless 0 <= start < end < infinity."""
    try:
        start, end = (float(time) for time in times)
    except (TypeError, ValueError, OverflowError):
        raise ValueError(f"{where}: a segment must be start and end in seconds, got {times!r}") from None
    if not 0 <= start < end < float("inf"):
        raise ValueError(f"{where}: 0 <= start < end must hold, got {times[0]} and {times[1]}")
    return start, end


def is_count(text: str) -> bool:
    """Whether a text is a number of at most 9 decimal digits."""
    return text.isdecimal() and len(text) <= 9


def unique(keys: Iterable[tuple[str, str]], what: str) -> list[str]:
    """The keys of (location, key) pairs; ValueError for a key that is repeated. `what` names the keys in the error."""
    seen: dict[str, str] = {}
    for where, key in keys:
        if key in seen:
            raise ValueError(f"{where}: {what} '{key}' is repeated, first at {seen[key]}")
        seen[key] = where
    return list(seen)


def published_split(split: str, names: Mapping[str, str]) -> str:
    """The name of a split in the annotations, `names[split]`, such as training for train.

    The annotations' own name is accepted too; other names are a ValueError.
    """
    if split not in names and split not in names.values():
        raise ValueError(f"dataset.split must be one of {', '.join(names)}, got '{split}'")
    return names.get(split, split)
