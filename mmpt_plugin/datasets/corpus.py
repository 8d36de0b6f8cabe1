"""What all annotated corpora share: files read with one clear error, features a file a video, what is missing."""

import csv
import hashlib
import json
import logging
import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from io import StringIO
from pathlib import Path
from typing import Any, Protocol, TypeVar, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmpt_plugin.features.files import read_features

logger = logging.getLogger(__name__)


class DataNotThere(ValueError):
    """A corpus whose files are not on this machine, as opposed to one whose files are wrong."""


@runtime_checkable
class OfVideo(Protocol):
    @property
    def video_id(self) -> str: ...


Record = TypeVar("Record", bound=OfVideo)


@dataclass(frozen=True)
class AnnotatedClip:
    """What happens in a video from `start` to `end` (seconds), in words."""

    video_id: str
    start: float
    end: float
    caption: str


@dataclass(kw_only=True)
class CorpusConfig:
    annotations: str
    """The annotation file, or folder, as its authors publish it."""
    features: str
    """A folder of `{video_id}.npy`, one row a second."""
    tokenizer: str
    """A BERT tokenizer, by hub name or folder."""
    allow_missing: bool = False
    """Leave out what has no features, and count it, instead of refusing to run."""


class Corpus:
    """Annotated videos and their features.

    A subclass reads its annotations with `read_text` and its kin, so that they are fingerprinted, and passes its
    records through `with_features`.
    """

    def __init__(self, config: CorpusConfig, split: str = "test") -> None:
        self.config = config
        self.missing_videos: list[str] = []
        self._annotations = hashlib.sha256()
        self._videos: list[str] = []

    def read_bytes(self, path: str | Path) -> bytes:
        if not Path(path).exists():
            raise DataNotThere(f"no annotations at {path}")
        try:
            content = Path(path).read_bytes()
        except OSError as error:
            raise ValueError(f"annotations {path} can't be read: {error.strerror}") from error
        self._annotations.update(content)
        return content

    def read_text(self, path: str | Path) -> str:
        try:
            return self.read_bytes(path).decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise ValueError(f"annotations {path} are not in UTF-8: {error.reason} at byte {error.start}") from error

    def read_lines(self, path: str | Path) -> Iterator[tuple[str, str]]:
        """Where a line stands, `file:number`, and the line; empty ones are left out."""
        for number, line in enumerate(self.read_text(path).splitlines(), 1):
            if line.strip():
                yield f"{path}:{number}", line.strip()

    def read_json(self, path: str | Path) -> Any:
        try:
            return json.loads(self.read_text(path))
        except json.JSONDecodeError as error:
            raise ValueError(f"{path}: no JSON: {error}") from error

    def read_csv(
        self, path: str | Path, columns: Sequence[str], *, header: bool = True, delimiter: str = ","
    ) -> Iterator[tuple[str, dict[str, str]]]:
        """Where a row stands, and its cells by column; `header` says whether the file itself names its columns."""
        reader = csv.DictReader(
            StringIO(self.read_text(path)), None if header else list(columns), restkey="", delimiter=delimiter
        )
        if absent := [column for column in columns if column not in (reader.fieldnames or [])]:
            raise ValueError(f"{path}: no column {absent}. Columns: {reader.fieldnames}")
        for row in reader:
            where = f"{path}:{reader.line_num}"
            if any(row[column] is None for column in columns):
                raise ValueError(f"{where}: a row has {len(columns)} cells, {', '.join(columns)}")
            yield where, {column: row[column].strip() for column in columns}

    def with_features(self, records: Iterable[Record]) -> list[Record]:
        """The records whose video has features; the other videos become `missing_videos`, or an error."""
        records, annotations, folder = list(records), self.config.annotations, self.config.features
        if not records:
            raise ValueError(f"annotations {annotations} hold no clips or videos of this split")
        if not Path(folder).is_dir():
            raise DataNotThere(f"no features at {folder}")
        videos = dict.fromkeys(record.video_id for record in records)
        self._videos = [video_id for video_id in videos if self.feature_file(video_id).is_file()]
        self.missing_videos = sorted(videos.keys() - set(self._videos))
        if self.missing_videos:
            named = f"{', '.join(self.missing_videos[:5])}{' ...' if len(self.missing_videos) > 5 else ''}"
            message = f"{annotations}: {len(self.missing_videos)} videos have no features in {folder}: {named}"
            if not self.config.allow_missing:
                raise ValueError(f"{message} (dataset.allow_missing: true leaves them out and counts them)")
            logger.warning(message)
        present = set(self._videos)
        kept = [record for record in records if record.video_id in present]
        if not kept:
            raise ValueError(f"{annotations}: no video is left that has features in {folder}")
        return kept

    def feature_file(self, video_id: str) -> Path:
        """`{video_id}.npy`; of an id that ends in a file's suffix, as `x.mp4`, `x.npy` will do."""
        path = Path(self.config.features) / f"{video_id}.npy"
        return path if path.is_file() or "." not in video_id else path.with_name(f"{Path(video_id).stem}.npy")

    def num_seconds(self, video_id: str) -> int:
        return len(read_features(self.feature_file(video_id)))

    def seconds(self, video_id: str, begin: int = 0, end: int | None = None) -> Float[Tensor, "T F"]:
        """The features of the seconds from `begin` up to, not with, `end`."""
        path = self.feature_file(video_id)
        rows = read_features(path)[begin:end].astype(np.float32)
        if not len(rows) or not np.isfinite(rows).all():
            raise ValueError(f"features {path} {'hold NaN or infinity' if len(rows) else 'are empty'}")
        return torch.from_numpy(rows)

    @property
    def feature_dim(self) -> int:
        return int(self.seconds(self._videos[0], 0, 1).shape[1])

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the annotation files one after the other, and of the features of all videos in use."""
        features = hashlib.sha256()
        for video_id in sorted(self._videos):
            features.update(self.feature_file(video_id).read_bytes())
        return {"annotations_sha256": self._annotations.hexdigest(), "features_sha256": features.hexdigest()}


class ClipCorpus(Corpus):
    """Clips with captions, to be found by them. Captions of one clip are records that share its video and times."""

    clips: list[AnnotatedClip]

    def keep(self, clips: Iterable[tuple[str, AnnotatedClip]]) -> list[AnnotatedClip]:
        """The clips, each with where it stands in the annotations, that have features and start within them.

        An end of infinity becomes the video's. One that lies past the features is theirs, as the last second of
        a video is seldom a whole one.
        """
        stands = [(where, clip) for where, clip in clips]
        present = {clip.video_id for clip in self.with_features(clip for _, clip in stands)}
        kept = []
        for where, clip in stands:
            if clip.video_id not in present:
                continue
            length = self.num_seconds(clip.video_id)
            if clip.start >= length:
                raise ValueError(
                    f"{where}: a clip of '{clip.video_id}' starts at {clip.start:g} s, "
                    f"but {self.feature_file(clip.video_id)} has {length} s"
                )
            whole = clip.end == float("inf")
            kept.append(AnnotatedClip(clip.video_id, clip.start, float(length), clip.caption) if whole else clip)
        return kept

    def features(self, clip: AnnotatedClip, *, max_video_len: int) -> Float[Tensor, "T F"]:
        """The rows of the clip's seconds, the first max_video_len of them."""
        begin = int(clip.start)
        return self.seconds(clip.video_id, begin, min(math.ceil(clip.end), begin + max_video_len))


def whole_video(video_id: str, caption: str, where: str) -> tuple[str, AnnotatedClip]:
    if not caption.strip():
        raise ValueError(f"{where}: the caption of '{video_id}' is empty")
    return where, AnnotatedClip(video_id, 0.0, float("inf"), caption)


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
    """The keys, each given with where it stands; one that comes again is an error."""
    seen: dict[str, str] = {}
    for where, key in keys:
        if key in seen:
            raise ValueError(f"{where}: {what} '{key}' comes again, it stands at {seen[key]} too")
        seen[key] = where
    return list(seen)
