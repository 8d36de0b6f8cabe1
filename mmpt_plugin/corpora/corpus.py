"""What all annotated corpora share: files read with one clear error, features or frames of videos, what is missing."""

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
from jaxtyping import Float, UInt8
from torch import Tensor

from mmpt_plugin.errors import unknown_name
from mmpt_plugin.features.files import read_features
from mmpt_plugin.files import without_suffix
from mmpt_plugin.video.frame_cache import open_videos
from mmpt_plugin.video.sparse_frames import FramesConfig, Videos, read_clips

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
    """Where the files of an annotated corpus are: annotations, and features or videos."""

    annotations: str
    """Annotation file or folder, in the format its authors publish."""
    features: str | None = None
    """Folder of `{video_id}.npy`, one feature row per second, as `mmpt extract` writes them."""
    videos: str | None = None
    """Folder of video files, or of frames that `mmpt cache-frames` wrote. Needed with `frames`."""
    frames: FramesConfig | None = None
    """Read frames of `videos` instead of `features`, such as `{num_frames: 12, size: 224, sampling: uniform}`."""
    tokenizer: str
    """Tokenizer of BERT, CLIP or SigLIP: hub name or folder. Used in training, and for models saved without one."""
    allow_missing: bool = False
    """Leave out videos without features or files, and report how many. Otherwise they are an error."""

    def __post_init__(self) -> None:
        if self.frames is None and self.features is None:
            raise ValueError(
                "dataset.features is missing, a folder of {video_id}.npy; dataset.frames reads videos instead"
            )
        if self.frames is not None and self.videos is None:
            raise ValueError("dataset.frames needs dataset.videos, a folder of video files or of cached frames")


class Corpus:
    """Annotated videos, and their features or frames.

    A subclass reads its annotations with `read_text` and the like, so that they are fingerprinted, and passes its
    records through `with_features`.
    """

    def __init__(self, config: CorpusConfig, split: str = "test") -> None:
        self.config = config
        self.video_ids: list[str] = []
        """The videos in use, each once; a data set that trains shares none with those that it is validated on."""
        self.missing_videos: list[str] = []
        self.missing_clips = 0
        self.missing_segments = 0
        self._annotations = hashlib.sha256()
        self._durations: dict[str, float] = {}

    def __getstate__(self) -> dict[str, Any]:
        """For a loader's workers: a running digest can't be sent to them, and they need none."""
        return vars(self) | {"_annotations": None}

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

    def with_features(self, records: Iterable[Record]) -> list[Record]:
        """The records whose video has features, or is there to be read; the others become `missing_videos`, or an
        error."""
        records, annotations, folder = list(records), self.config.annotations, self.data_folder
        if not records:
            raise ValueError(f"annotations {annotations} hold no clips or videos of this split")
        kind = "features" if self.config.frames is None else "videos"
        if not folder.is_dir():
            raise DataNotThere(f"no {kind} at {folder}")
        videos = dict.fromkeys(record.video_id for record in records)
        self.video_ids = [video_id for video_id in videos if self._has(video_id)]
        self.missing_videos = sorted(videos.keys() - set(self.video_ids))
        if self.missing_videos:
            named = f"{', '.join(self.missing_videos[:5])}{' ...' if len(self.missing_videos) > 5 else ''}"
            lack = "have no features" if kind == "features" else "can't be read"
            message = f"{annotations}: {len(self.missing_videos)} videos {lack} in {folder}: {named}"
            if not self.config.allow_missing:
                raise ValueError(f"{message} (dataset.allow_missing: true leaves them out and counts them)")
            logger.warning(message)
        self._check_files()
        present = set(self.video_ids)
        kept = [record for record in records if record.video_id in present]
        if not kept:
            raise ValueError(f"{annotations}: no video is left that has {kind} in {folder}")
        return kept

    def _left_out(self, problems: Sequence[str], what: str) -> int:
        """How many clips or segments can't be used: an error, or with `allow_missing` logged."""
        if problems and not self.config.allow_missing:
            raise ValueError(f"{problems[0]} (dataset.allow_missing: true leaves such {what} out and counts them)")
        if problems:
            logger.warning(f"{len(problems)} {what} are left out, such as {problems[0]}")
        return len(problems)

    @property
    def data_folder(self) -> Path:
        """Of the features, or of the videos that frames are read of."""
        folder = self.config.features if self.config.frames is None else self.config.videos
        assert folder is not None
        return Path(folder)

    @cached_property
    def source(self) -> Videos:
        return open_videos(self.data_folder)

    def file_names(self, video_id: str) -> list[str]:
        """What a video's file may be called, the first that is there counts."""
        return [video_id]

    def _has(self, video_id: str) -> bool:
        if self.config.frames is None:
            return self.feature_file(video_id).is_file()
        return any(name in self.source for name in self.file_names(video_id))

    def feature_file(self, video_id: str) -> Path:
        """`{video_id}.npy`; of an id that ends in a file's suffix, as `x.mp4`, `x.npy` will do."""
        possible = [f"{name}.npy" for name in self.file_names(video_id)]
        possible += [f"{without_suffix(name)}.npy" for name in self.file_names(video_id) if "." in name]
        paths = [self.data_folder / name for name in possible]
        return next((path for path in paths if path.is_file()), paths[0])

    def _check_files(self) -> None:
        """Two videos can't have the same features: `clip.1` without a file of its own must not have those of `clip`."""
        if self.config.frames is None:
            owners: dict[Path, str] = {}
            for video_id in self.video_ids:
                path = self.feature_file(video_id)
                if owners.setdefault(path, video_id) != video_id:
                    raise ValueError(f"{path} would be the features of two videos, '{owners[path]}' and '{video_id}'")

    def _source_name(self, video_id: str) -> str:
        """The name that the folder of videos has for a video."""
        names = self.file_names(video_id)
        return names[0] if len(names) == 1 else next((name for name in names if name in self.source), names[0])

    def num_seconds(self, video_id: str) -> int:
        """Of features."""
        return len(read_features(self.feature_file(video_id)))

    def duration(self, video_id: str) -> float:
        """Seconds that there are features of, or of the video."""
        if video_id not in self._durations:
            features = self.config.frames is None
            self._durations[video_id] = (
                float(self.num_seconds(video_id)) if features else self.source.duration(self._source_name(video_id))
            )
        return self._durations[video_id]

    def seconds(self, video_id: str, begin: int = 0, end: int | None = None) -> Float[Tensor, "T F"]:
        """The features of the seconds from `begin` up to, not with, `end`."""
        if self.config.frames is not None:
            raise ValueError("this task reads a row of features a second: leave out dataset.frames")
        path = self.feature_file(video_id)
        rows = read_features(path)[begin:end].astype(np.float32)
        if not len(rows) or not np.isfinite(rows).all():
            raise ValueError(f"features {path} {'hold NaN or infinity' if len(rows) else 'are empty'}")
        return torch.from_numpy(rows)

    def clip(
        self, video_id: str, start: float = 0.0, end: float | None = None, *, max_video_len: int
    ) -> Float[Tensor, "T F"] | UInt8[Tensor, "T H W 3"]:
        """What a model is given of a video from `start` to `end` (seconds): the rows of these seconds, the first
        max_video_len of them, or frames spread over all of them."""
        end = self.duration(video_id) if end is None else end
        frames = self.config.frames
        if frames is None:
            begin = int(start)
            return self.seconds(video_id, begin, min(math.ceil(end), begin + max_video_len))
        if frames.num_frames > max_video_len:
            raise ValueError(
                f"dataset.frames.num_frames {frames.num_frames} is more than max_video_len {max_video_len}"
            )
        return read_clips(self.source, self._source_name(video_id), [(start, end)], frames)[0]

    @property
    def feature_dim(self) -> int | None:
        """None for frames."""
        return int(self.seconds(self.video_ids[0], 0, 1).shape[1]) if self.config.frames is None else None

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the annotation files one after the other, and of the features, or videos, of all in use."""
        digest, frames = hashlib.sha256(), self.config.frames is not None
        for video_id in sorted(self.video_ids):
            path, name = self.feature_file(video_id), self._source_name(video_id) if frames else ""
            digest.update(self.source.content(name) if frames else path.read_bytes())
        kind = "videos" if frames else "features"
        return {"annotations_sha256": self._annotations.hexdigest(), f"{kind}_sha256": digest.hexdigest()}


class ClipCorpus(Corpus):
    """Clips with captions, to be found by them. Captions of one clip are records that share its video and times."""

    clips: list[AnnotatedClip]

    def keep(self, clips: Iterable[tuple[str, AnnotatedClip]]) -> list[AnnotatedClip]:
        """The clips, each with its place in the annotations, that have features or frames and start within them.

        An end of infinity becomes the video's. One that lies past the features is theirs, as the last second of
        a video is seldom a whole one. With `allow_missing` clips that start past them are left out and counted.
        """
        listed = list(clips)
        present = {clip.video_id for clip in self.with_features(clip for _, clip in listed)}
        kept, late = [], []
        for where, clip in listed:
            if clip.video_id not in present:
                continue
            length = self.duration(clip.video_id)
            if clip.start >= length:
                source = self.feature_file(clip.video_id) if self.config.frames is None else "the video"
                late.append(
                    f"{where}: a clip of '{clip.video_id}' starts at {clip.start:g} s, but {source} has {length:g} s"
                )
                continue
            whole = clip.end == float("inf")
            kept.append(AnnotatedClip(clip.video_id, clip.start, length, clip.caption) if whole else clip)
        self.missing_clips = self._left_out(late, "clips")
        if not kept:
            raise ValueError(f"{self.config.annotations}: no clip is left that starts within its video")
        self.video_ids = list(dict.fromkeys(clip.video_id for clip in kept))
        return kept

    def features(self, clip: AnnotatedClip, *, max_video_len: int) -> Float[Tensor, "T F"] | UInt8[Tensor, "T H W 3"]:
        """See `Corpus.clip`."""
        return self.clip(clip.video_id, clip.start, clip.end, max_video_len=max_video_len)


def whole_video(video_id: str, caption: str, where: str) -> tuple[str, AnnotatedClip]:
    if not caption.strip():
        raise ValueError(f"{where}: the caption of '{video_id}' is empty")
    return where, AnnotatedClip(video_id, 0.0, float("inf"), caption)


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
