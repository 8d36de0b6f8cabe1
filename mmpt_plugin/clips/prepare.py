"""Features and caption files -> shards."""

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from rich.progress import track

from mmpt_plugin.clips.captions import (
    SUFFIXES,
    check_captions,
    describe_tokenizer,
    load_tokenizer,
    read_captions,
    tokenize,
)
from mmpt_plugin.features.extract import read_features
from mmpt_plugin.features.shards import ShardWriter

NAMED = 10  # incomplete videos that an error shows; the report has all


@dataclass
class ShardReport:
    """What went into the shards, and what did not."""

    videos: int = 0
    seconds: int = 0
    """Rows of features."""
    captions: int = 0
    captions_cut: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    """Video id -> what it lacks, or what is wrong with it."""

    def add(self, seconds: int, captions: int, captions_cut: int) -> None:
        self.videos += 1
        self.seconds += seconds
        self.captions += captions
        self.captions_cut += captions_cut

    def __str__(self) -> str:
        lines = [
            f"{self.videos} videos, {self.seconds} s, {self.captions} captions ({self.captions_cut} cut to their limit)"
        ]
        return "\n".join([*lines, *(f"left out {video}: {reason}" for video, reason in self.missing.items())])


def make_shards(
    video_ids: Sequence[str],
    *,
    features: Path,
    captions: Path,
    tokenizer: str,
    out: Path,
    allow_missing: bool = False,
    videos_per_shard: int = 4096,
    max_tokens: int = 32,
    max_characters: int | None = None,
) -> ShardReport:
    """Shards in `out` of the listed videos, from `features/{id}.npy` and `captions/{id}.vtt|.srt|.jsonl`.

    A listed video without features or captions, or with files that can't be used (captions must be in order and
    within their video), is an error, or with allow_missing left out and reported. Features of two encoders or widths
    are an error in any case. Captions are cut as in `tokenize`.
    """
    if not video_ids:
        raise ValueError("the list of videos is empty")
    report = ShardReport()
    present = list(find(video_ids, features, captions, report.missing))
    if not present or (report.missing and not allow_missing):
        some = "; ".join(f"'{video}': {reason}" for video, reason in list(report.missing.items())[:NAMED])
        raise ValueError(f"{len(report.missing)} of {len(video_ids)} videos are incomplete, such as {some}")
    words = load_tokenizer(tokenizer)
    pieces = partial(tokenize, tokenizer=words, max_tokens=max_tokens, max_characters=max_characters)
    encoder, width = encoder_of(present[0].features), read_features(present[0].features).shape[1]
    with ShardWriter(
        out,
        feature_dim=width,
        encoder=encoder,
        tokenizer=describe_tokenizer(words, name=tokenizer),
        videos_per_shard=videos_per_shard,
    ) as writer:
        for video in track(present, "sharding"):
            try:
                rows, times, ids, cut = read_video(video, pieces)
            except ValueError as error:
                if not allow_missing:
                    raise
                report.missing[video.video_id] = str(error)
                continue
            if encoder_of(video.features) != encoder:
                raise ValueError(f"{video.features} is by another encoder than {present[0].features}")
            writer.add(video.video_id, rows, times, ids)
            report.add(len(rows), len(ids), cut)
    return report


class Source(NamedTuple):
    """The files of one video."""

    video_id: str
    features: Path
    captions: Path


def find(video_ids: Sequence[str], features: Path, captions: Path, missing: dict[str, str]) -> Iterator[Source]:
    """The videos that have both files; the others go into `missing`, with what they lack."""
    for video_id in video_ids:
        feature_file = features / f"{video_id}.npy"
        caption_file = next((path for suffix in SUFFIXES if (path := captions / f"{video_id}{suffix}").is_file()), None)
        if not feature_file.is_file():
            missing[video_id] = f"no {feature_file}"
        elif caption_file is None:
            missing[video_id] = f"no {video_id} with {' or '.join(SUFFIXES)} in {captions}"
        else:
            yield Source(video_id, feature_file, caption_file)


def read_video(
    video: Source, pieces: Callable[[list[str]], tuple[list[list[int]], int]]
) -> tuple[Float[np.ndarray, "T F"], Float[np.ndarray, "N 2"], list[list[int]], int]:
    """Features, caption times, word pieces, and how many captions were cut."""
    rows, spoken = read_features(video.features), read_captions(video.captions)
    check_captions(spoken, where=str(video.captions), duration=float(len(rows)))
    ids, cut = pieces([caption.text for caption in spoken])
    if not any(ids):
        raise ValueError(f"captions {video.captions} hold no words")
    return rows, np.array([[caption.start, caption.end] for caption in spoken]), ids, cut


def encoder_of(features: Path) -> str:
    """The fingerprint that extraction left beside the features; 'unknown' for features from elsewhere."""
    about = features.with_suffix(".json")
    try:
        return str(json.loads(about.read_text(encoding="utf-8"))["encoder"]) if about.is_file() else "unknown"
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"{about} is damaged: {error!r}") from error
