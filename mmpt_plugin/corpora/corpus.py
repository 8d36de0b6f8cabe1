"""What all annotated corpora share: the features or frames of their videos, and what is missing."""

import hashlib
import logging
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar, cast, runtime_checkable

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from mmpt_plugin import registry
from mmpt_plugin.corpora.readers import AnnotationReader, DataNotThere
from mmpt_plugin.features.files import FeatureFolder, read_features
from mmpt_plugin.video.frame_cache import open_videos
from mmpt_plugin.video.sparse_frames import FramesConfig, Videos, read_clips

logger = logging.getLogger(__name__)


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


class Corpus(AnnotationReader):
    """Annotated videos, and their features or frames.

    A subclass reads its annotations with `read_text` and the like, so that they are fingerprinted, and passes its
    records through `with_features`.
    """

    def __init__(self, config: CorpusConfig) -> None:
        super().__init__()
        self.config = config
        self.video_ids: list[str] = []
        """The videos in use, each once; a data set that trains shares none with those that it is validated on."""
        self.missing_videos: list[str] = []
        self.missing_clips = 0
        self.missing_segments = 0
        self._durations: dict[str, float] = {}

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
        """Of the video's names the first that there is a file of, see `FeatureFolder.find`."""
        return FeatureFolder(self.data_folder).find(self.file_names(video_id))

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
