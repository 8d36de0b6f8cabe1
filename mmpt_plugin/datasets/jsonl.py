"""Annotated clips for everyone's own data: one JSON object a line, features a file a video."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmpt_plugin.features.files import read_features
from mmpt_plugin.registry import register_dataset

KEYS: dict[str, Any] = {"video_id": str, "start": (int, float), "end": (int, float), "caption": str}


@dataclass(frozen=True)
class AnnotatedClip:
    """What happens in a video from `start` to `end` (seconds), in words."""

    video_id: str
    start: float
    end: float
    caption: str


@dataclass(kw_only=True)
class JSONLConfig:
    annotations: str
    """A file of lines `{"video_id": ..., "start": ..., "end": ..., "caption": ...}`, times in seconds."""
    features: str
    """A folder of `{video_id}.npy`, one row a second."""
    tokenizer: str
    """A BERT tokenizer, by hub name or folder."""
    allow_missing: bool = False
    """Leave out clips whose video has no features, and count them, instead of refusing to run."""


@register_dataset("jsonl", dataclass=JSONLConfig)
class JSONLClips:
    """The clips of an annotation file, in its order, and their features."""

    def __init__(self, config: JSONLConfig, split: str = "test") -> None:
        self.config = config
        clips = read_annotations(Path(config.annotations))
        missing = sorted({c.video_id for c in clips if not self._feature_file(c.video_id).is_file()})
        if missing and not config.allow_missing:
            raise ValueError(
                f"{config.annotations}: {len(missing)} videos have no features in {config.features}: "
                f"{', '.join(missing[:5])}{' ...' if len(missing) > 5 else ''} "
                "(dataset.allow_missing: true leaves them out and counts them)"
            )
        self.missing_videos = missing
        self.clips = [clip for clip in clips if clip.video_id not in set(missing)]
        if not self.clips:
            raise ValueError(f"{config.annotations}: no clip is left whose video has features in {config.features}")

    def __len__(self) -> int:
        return len(self.clips)

    def features(self, clip: AnnotatedClip, *, max_video_len: int) -> Float[Tensor, "T F"]:
        """The rows of the clip's seconds, the first max_video_len of them."""
        path = self._feature_file(clip.video_id)
        rows = read_features(path)
        begin, end = int(clip.start), int(np.ceil(clip.end))
        if begin >= len(rows):
            raise ValueError(
                f"{self.config.annotations}: a clip of '{clip.video_id}' starts at {clip.start} s, "
                f"but {path} has {len(rows)} s"
            )
        return torch.from_numpy(rows[begin : min(end, begin + max_video_len)].astype(np.float32))

    def _feature_file(self, video_id: str) -> Path:
        return Path(self.config.features) / f"{video_id}.npy"


def read_annotations(path: Path) -> list[AnnotatedClip]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise ValueError(f"annotations {path} can't be read: {error}") from error
    clips = [parse(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if not clips:
        raise ValueError(f"annotations {path} hold no clips")
    return clips


def parse(line: str, where: str) -> AnnotatedClip:
    try:
        record: dict[str, Any] = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: no JSON: {error}") from error
    for key, kind in KEYS.items():
        if not isinstance(record.get(key), kind):
            raise ValueError(f"{where}: '{key}' is missing or of the wrong type; a line has {', '.join(KEYS)}")
    if not 0 <= record["start"] < record["end"]:
        raise ValueError(f"{where}: 0 <= start < end must hold, got {record['start']} and {record['end']}")
    return AnnotatedClip(record["video_id"], float(record["start"]), float(record["end"]), record["caption"])
