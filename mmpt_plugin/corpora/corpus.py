"""The base class of all corpora: access to features or frames, and the handling of missing videos.

T seconds or frames, F feature width.
"""

import hashlib
import logging
import math
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from numpy.random import Generator
from torch import Tensor

from mmpt_plugin import registry
from mmpt_plugin.corpora.readers import AnnotationReader, DataNotThere
from mmpt_plugin.features.files import FeatureFolder, read_features
from mmpt_plugin.video.frame_cache import open_videos
from mmpt_plugin.video.sparse_frames import FramesConfig, Videos, read_clips

logger = logging.getLogger(__name__)


@runtime_checkable
class OfVideo(Protocol):
    """A record of one video."""

    @property
    def video_id(self) -> str:
        """The id under which the video's features or frames are stored."""


Record = TypeVar("Record", bound=OfVideo)


@dataclass(frozen=True)
class AnnotatedClip:
    """A caption of a video from `start` to `end` (seconds)."""

    video_id: str
    start: float
    end: float
    caption: str
    meaning: Mapping[str, str] = field(default_factory=dict, hash=False)
    """What the clip shows, by named part, such as `{"action": "chop", "ingredient": "tomato"}`; empty if not known.
    Clips with equal meanings mean the same, whatever their captions say."""


@dataclass(kw_only=True)
class CorpusConfig:
    """The files of an annotated corpus: annotations, and features or videos."""

    annotations: str
    """Annotation file or folder, in the format that its authors publish."""
    features: str | None = None
    """Folder of `{video_id}.npy`, one feature row per second, as `mmpt extract` writes them."""
    videos: str | None = None
    """Folder of video files, or of frames that `mmpt cache-frames` wrote. Needed with `frames`."""
    frames: FramesConfig | None = None
    """Read frames of `videos` instead of `features`, such as `{num_frames: 12, size: 224, sampling: uniform}`."""
    tokenizer: str
    """Tokenizer of BERT, CLIP or SigLIP: hub name or folder. Used in training, and for models saved without a
    tokenizer."""
    allow_missing: bool = False
    """Skip videos without features or files, and report their number. If false, they are an error."""

    def __post_init__(self) -> None:
        if self.frames is None and self.features is None:
            raise ValueError(
                "dataset.features is missing: give a folder of {video_id}.npy, or set dataset.frames to read videos"
            )
        if self.frames is not None and self.videos is None:
            raise ValueError("dataset.frames needs dataset.videos, a folder of video files or of cached frames")


class Corpus(AnnotationReader):
    """Annotated videos, and their features or frames.

    A subclass reads its annotations with the `read_...` methods, which fingerprint them, and passes its records
    through `with_features`, which checks that their videos are available.
    """

    def __init__(self, config: CorpusConfig) -> None:
        super().__init__()
        self.config = config
        self.video_ids: list[str] = []
        """Ids of the videos in use, without repeats. Training and validation videos must be disjoint."""
        self.missing_videos: list[str] = []
        """Ids of annotated videos without features or files."""
        self.missing_clips = 0
        """Number of clips that start after the end of their video."""
        self.missing_segments = 0
        """Number of segments that start after the end of their video."""
        self._durations: dict[str, float] = {}

    def with_features(self, records: Iterable[Record]) -> list[Record]:
        """Return the records whose video has features, or a video file if `frames` is set.

        The ids of the other videos are kept in `missing_videos`; they are a ValueError unless `allow_missing` is set.
        """
        records, annotations, folder = list(records), self.config.annotations, self.data_folder
        if not records:
            raise ValueError(f"annotations {annotations} contain no clips or videos of this split")
        kind = "features" if self.config.frames is None else "videos"
        if not folder.is_dir():
            raise DataNotThere(f"no {kind} at {folder}")
        videos = dict.fromkeys(record.video_id for record in records)
        try:
            self.video_ids = [video_id for video_id in videos if self._has(video_id)]
        except ValueError as error:  # an id that leads out of the folder
            raise ValueError(f"{annotations}: {error}") from error
        self.missing_videos = sorted(videos.keys() - set(self.video_ids))
        if self.missing_videos:
            named = f"{', '.join(self.missing_videos[:5])}{' ...' if len(self.missing_videos) > 5 else ''}"
            lack = "have no features" if kind == "features" else "can't be read"
            message = f"{annotations}: {len(self.missing_videos)} videos {lack} in {folder}: {named}"
            if not self.config.allow_missing:
                raise ValueError(f"{message} (set dataset.allow_missing: true to skip them)")
            logger.warning(message)
        self._check_files()
        present = set(self.video_ids)
        kept = [record for record in records if record.video_id in present]
        if not kept:
            raise ValueError(f"{annotations}: none of the videos has {kind} in {folder}")
        return kept

    def _left_out(self, problems: Sequence[str], what: str) -> int:
        """Return the number of unusable clips or segments; ValueError unless `allow_missing` is set."""
        if problems and not self.config.allow_missing:
            raise ValueError(f"{problems[0]} (set dataset.allow_missing: true to skip such {what})")
        if problems:
            logger.warning(f"{len(problems)} {what} are skipped, such as {problems[0]}")
        return len(problems)

    @property
    def data_folder(self) -> Path:
        """The folder of the features, or of the videos if `frames` is set."""
        folder = self.config.features if self.config.frames is None else self.config.videos
        assert folder is not None
        return Path(folder)

    @cached_property
    def source(self) -> Videos:
        """The video files or cached frames of `data_folder`."""
        return open_videos(self.data_folder)

    def file_names(self, video_id: str) -> list[str]:
        """The possible names of a video's file, in order of precedence."""
        return [video_id]

    def _has(self, video_id: str) -> bool:
        if self.config.frames is None:
            return self.feature_file(video_id).is_file()
        return any(name in self.source for name in self.file_names(video_id))

    def feature_file(self, video_id: str) -> Path:
        """The feature file of a video, under the first of its names that exists; see `FeatureFolder.find`."""
        return FeatureFolder(self.data_folder).find(self.file_names(video_id))

    def _check_files(self) -> None:
        """Check that no two videos use the same file: if `clip.1.npy` is missing, `clip.1` must not use `clip.npy`."""
        owners: dict[Path, str] = {}
        for video_id in self.video_ids:
            features = self.config.frames is None
            path = self.feature_file(video_id) if features else self.data_folder / self._source_name(video_id)
            if owners.setdefault(path, video_id) != video_id:
                raise ValueError(f"{path} matches two videos, '{owners[path]}' and '{video_id}'")

    def _source_name(self, video_id: str) -> str:
        """The name of a video in the folder of videos."""
        names = self.file_names(video_id)
        return names[0] if len(names) == 1 else next((name for name in names if name in self.source), names[0])

    def num_seconds(self, video_id: str) -> int:
        """The number of feature rows of a video, one per second."""
        return len(read_features(self.feature_file(video_id)))

    def duration(self, video_id: str) -> float:
        """The duration in seconds: the number of feature rows, or the video's own if `frames` is set."""
        if video_id not in self._durations:
            features = self.config.frames is None
            self._durations[video_id] = (
                float(self.num_seconds(video_id)) if features else self.source.duration(self._source_name(video_id))
            )
        return self._durations[video_id]

    def seconds(self, video_id: str, begin: int = 0, end: int | None = None) -> Float[Tensor, "T F"]:
        """The features of seconds `begin` <= second < `end`, as float32.

        Empty features, and NaN or infinity, are a ValueError.
        """
        if self.config.frames is not None:
            raise ValueError("this task needs one feature row per second: remove dataset.frames")
        path = self.feature_file(video_id)
        rows = read_features(path)[begin:end].astype(np.float32)
        if not len(rows) or not np.isfinite(rows).all():
            raise ValueError(f"features {path} {'contain NaN or infinity' if len(rows) else 'are empty'}")
        return torch.from_numpy(rows)

    def clip(
        self,
        video_id: str,
        start: float = 0.0,
        end: float | None = None,
        *,
        max_video_len: int,
        rng: Generator | None = None,
    ) -> Float[Tensor, "T F"] | UInt8[Tensor, "T H W 3"]:
        """The model's input for a video from `start` to `end` (seconds; None is the end of the video).

        Either the feature rows of the first max_video_len of these seconds, or frames sampled over all of them. `rng`
        is for samplings that differ in training.
        """
        end = self.duration(video_id) if end is None else end
        frames = self.config.frames
        if frames is None:
            begin = int(start)
            return self.seconds(video_id, begin, min(math.ceil(end), begin + max_video_len))
        if frames.num_frames > max_video_len:
            raise ValueError(
                f"dataset.frames.num_frames {frames.num_frames} is more than max_video_len {max_video_len}"
            )
        return read_clips(self.source, self._source_name(video_id), [(start, end)], frames, rng=rng)[0]

    @property
    def feature_dim(self) -> int | None:
        """Width of the feature rows; None for frames."""
        return int(self.seconds(self.video_ids[0], 0, 1).shape[1]) if self.config.frames is None else None

    @cached_property
    def fingerprints(self) -> dict[str, str]:
        """SHA-256 of the concatenated annotation files, and of the features or videos in use, in order of their ids."""
        digest, frames = hashlib.sha256(), self.config.frames is not None
        for video_id in sorted(self.video_ids):
            path, name = self.feature_file(video_id), self._source_name(video_id) if frames else ""
            digest.update(self.source.content(name) if frames else path.read_bytes())
        kind = "videos" if frames else "features"
        return {"annotations_sha256": self.annotations_sha256, f"{kind}_sha256": digest.hexdigest()}


AnyCorpus = TypeVar("AnyCorpus", bound=Corpus)


def build_corpus(section: Mapping[str, Any], kind: type[AnyCorpus], *, needs: str) -> AnyCorpus:
    """The corpus that a YAML section names.

    Any class with the attributes of `kind` will do; ValueError for a corpus without the attribute `needs`.
    """
    corpus = registry.corpora.build(section)
    if not hasattr(corpus, needs):
        raise ValueError(f"corpus '{section['_name']}' has no {needs}, which are needed: set another dataset._name")
    return cast(AnyCorpus, corpus)


class ClipCorpus(Corpus):
    """Captioned clips, for retrieval."""

    clips: list[AnnotatedClip]
    """One entry per caption: several captions of one clip are entries with the same video and times."""

    def keep(self, clips: Iterable[tuple[str, AnnotatedClip]]) -> list[AnnotatedClip]:
        """The usable clips, from (location in the annotations, clip) pairs.

        An end of infinity becomes the end of the video. Other ends may lie after the end of the features, because
        their last second is often incomplete. Clips that start after it are a ValueError; with `allow_missing` they are
        skipped and counted. Either all clips have a meaning, with the same parts, or none has.
        """
        listed = list(clips)
        check_meanings(listed)
        present = {clip.video_id for clip in self.with_features(clip for _, clip in listed)}
        kept, late = [], []
        for where, clip in listed:
            if clip.video_id not in present:
                continue
            length = self.duration(clip.video_id)
            if clip.start >= length:
                source = self.feature_file(clip.video_id) if self.config.frames is None else "the video"
                late.append(
                    f"{where}: a clip of '{clip.video_id}' starts at {clip.start:g} s, but {source} ends at "
                    f"{length:g} s"
                )
                continue
            whole = clip.end == float("inf")
            kept.append(replace(clip, end=length) if whole else clip)
        self.missing_clips = self._left_out(late, "clips")
        if not kept:
            raise ValueError(f"{self.config.annotations}: none of the clips starts within its video")
        self.video_ids = list(dict.fromkeys(clip.video_id for clip in kept))
        return kept

    def features(
        self, clip: AnnotatedClip, *, max_video_len: int, rng: Generator | None = None
    ) -> Float[Tensor, "T F"] | UInt8[Tensor, "T H W 3"]:
        """See `Corpus.clip`."""
        return self.clip(clip.video_id, clip.start, clip.end, max_video_len=max_video_len, rng=rng)


def check_meanings(clips: Iterable[tuple[str, AnnotatedClip]]) -> None:
    """ValueError for a clip with two meanings, or whose meaning has other parts than that of the first clip."""
    parts: Collection[str] | None = None
    meanings: dict[tuple[str, float, float], Mapping[str, str]] = {}
    for where, clip in clips:
        parts = clip.meaning.keys() if parts is None else parts
        if clip.meaning.keys() != parts:
            raise ValueError(f"{where}: the clip has {named(clip.meaning)}, but the first clip has {named(parts)}")
        if meanings.setdefault((clip.video_id, clip.start, clip.end), clip.meaning) != clip.meaning:
            raise ValueError(f"{where}: another caption of the same clip of '{clip.video_id}' has another 'meaning'")


def named(parts: Collection[str]) -> str:
    """A meaning with these parts, for an error message."""
    return f"a meaning of {', '.join(parts)}" if parts else "no meaning"


def whole_video(video_id: str, caption: str, where: str) -> tuple[str, AnnotatedClip]:
    """A caption of a whole video, with its location in the annotations; ValueError for an empty caption."""
    if not caption.strip():
        raise ValueError(f"{where}: the caption of '{video_id}' is empty")
    return where, AnnotatedClip(video_id, 0.0, float("inf"), caption)
