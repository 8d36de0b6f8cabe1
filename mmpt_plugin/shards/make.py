"""Features and captions -> shards."""

import json
import math
import random
import zlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float
from rich.progress import track

from mmpt_plugin.features.files import feature_file, read_features
from mmpt_plugin.files import files_below
from mmpt_plugin.shards.caption_sources import Narration, caption_source, within
from mmpt_plugin.shards.captions import Caption, check_captions
from mmpt_plugin.shards.deduplicate import Unit, deduplicate
from mmpt_plugin.shards.mmpt_shards import read_mmpt_shards
from mmpt_plugin.shards.rolling import unroll
from mmpt_plugin.shards.writer import ShardWriter
from mmpt_plugin.tokenizer import describe_tokenizer, load_tokenizer, tokenize
from mmpt_plugin.video.frame_cache import open_videos
from mmpt_plugin.video.sparse_frames import Videos

NAMED = 10  # incomplete videos that a message shows
TOKENIZED_TOGETHER = 64  # videos


@dataclass
class ShardReport:
    """What went into the shards, and what did not."""

    videos: int = 0
    seconds: int = 0
    """Rows of features."""
    captions: int = 0
    captions_cut: int = 0
    """Longer than a caption may be."""
    captions_repeated: int = 0
    """Captions that said nothing new, or became part of another, or lost words that the one before had said."""
    captions_outside: int = 0
    """Speech recognition's captions that start after their video or have no length of time."""
    missing: dict[str, str] = field(default_factory=dict)
    """Video id -> what it lacks, or what is wrong with it."""

    def add(self, seconds: int, captions: int) -> None:
        """One more video."""
        self.videos += 1
        self.seconds += seconds
        self.captions += captions

    def __str__(self) -> str:
        lines = [
            f"{self.videos} videos, {self.seconds} s, {self.captions} captions, {self.captions_cut} cut to their limit "
            f"({self.captions_repeated} repeated the one before, {self.captions_outside} outside their video left out)"
        ]
        lines += [f"left out {video}: {reason}" for video, reason in islice(self.missing.items(), NAMED)]
        if len(self.missing) > NAMED:
            lines.append(f"left out {len(self.missing) - NAMED} more")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class CaptionLimits:
    """How much of a caption becomes word pieces; the released VideoCLIP was trained on 96 characters and 32 tokens."""

    max_tokens: int = 32
    """Word pieces kept of a caption."""
    max_characters: int | None = None
    """Characters kept of a caption, before it becomes word pieces; null keeps all."""
    unit: Unit | None = "word"
    """Unit in which repetitions in HowTo100M's captions are found and removed: word, or character as in the original.
    Null keeps repetitions, also those of rolling captions."""
    seed: int = 0
    """Seed of the random choice of the caption that keeps a repetition; every video has its own random numbers."""


def make_shards(
    video_ids: Sequence[str] | None,
    *,
    features: Path,
    captions: Path,
    tokenizer: str,
    out: Path,
    allow_missing: bool = False,
    videos_per_shard: int = 4096,
    limits: CaptionLimits = CaptionLimits(),
) -> ShardReport:
    """Shards in `out` of the listed videos (None: of all that have features), from `features/{id}.npy` and what
    `captions` is: a folder of subtitles, or one of the files that `caption_source` knows. To train from frames,
    `features` may be a folder of videos or of cached frames: the shards then hold a row of width 0 a second.

    A listed video without features or captions, or with files that can't be used (captions must be in order and
    within their video), is an error, or with allow_missing left out and reported. What speech recognition wrote is
    put in order instead, and what had to go is counted. Features of two encoders or widths are an error in any case.
    """
    source = caption_source(captions)
    rows = open_rows(features)
    video_ids = rows.ids() if video_ids is None else list(dict.fromkeys(video_ids))
    if not video_ids:
        raise ValueError("the list of videos is empty")
    report = ShardReport()
    report.missing |= {v: f"no {rows.where(v)}" for v in video_ids if not rows.has(v)}
    report.missing |= source.lacking(v for v in video_ids if v not in report.missing)
    present = [video_id for video_id in video_ids if video_id not in report.missing]
    if not present or (report.missing and not allow_missing):
        some = "; ".join(f"'{video}': {report.missing[video]}" for video in video_ids if video in report.missing)
        raise ValueError(f"{len(report.missing)} of {len(video_ids)} videos are incomplete, such as {some[:1000]}")
    words = load_tokenizer(tokenizer)
    pieces = partial(tokenize, tokenizer=words, max_tokens=limits.max_tokens, max_characters=limits.max_characters)
    unseen = set(present)
    narrations = track(source(present), "sharding", total=len(present))
    videos = tokenized(usable(narrations, rows, limits, report, allow_missing, unseen), pieces)
    first = next(videos, None)
    if first is None:
        raise ValueError(f"none of {len(video_ids)} videos can be used{some_of(report.missing, captions)}")
    with ShardWriter(
        out,
        feature_dim=first.features.shape[1],
        encoder=first.encoder,
        tokenizer=describe_tokenizer(words, name=tokenizer),
        videos_per_shard=videos_per_shard,
    ) as writer:
        for video in chain([first], videos):
            check_alike(video, first, rows)
            writer.add(video.video_id, video.features, video.times, video.tokens)
            report.add(len(video.features), len(video.tokens))
            report.captions_cut += video.captions_cut
        report.missing |= dict.fromkeys(sorted(unseen), f"no captions in {captions}")
        if unseen and not allow_missing:
            raise ValueError(f"{len(unseen)} of {len(video_ids)} videos have no captions in {captions}: {min(unseen)}")
    return report


def some_of(missing: Mapping[str, str], captions: Path) -> str:
    """The first reasons, for a message."""
    some = "; ".join(f"'{video}': {reason}" for video, reason in islice(missing.items(), NAMED))
    return f", such as {some[:1000]}" if some else f": {captions} has captions of none of them"


def check_alike(video: "TokenizedVideo", first: "TokenizedVideo", rows: "FeatureFiles | OnlyLengths") -> None:
    here, there = rows.where(video.video_id), rows.where(first.video_id)
    if video.encoder != first.encoder:
        raise ValueError(f"{here} is by another encoder than {there}")
    if video.features.shape[1] != first.features.shape[1]:
        widths = f"rows of {video.features.shape[1]} numbers, {there} of {first.features.shape[1]}"
        raise ValueError(f"features {here} have {widths}: shards hold features of one encoder")


class SpokenVideo(NamedTuple):
    video_id: str
    encoder: str
    features: Float[np.ndarray, "T F"]
    captions: list[Caption]


class TokenizedVideo(NamedTuple):
    video_id: str
    encoder: str
    features: Float[np.ndarray, "T F"]
    times: Float[np.ndarray, "N 2"]
    tokens: list[list[int]]
    captions_cut: int


def usable(
    narrations: Iterable[Narration],
    rows: "FeatureFiles | OnlyLengths",
    limits: CaptionLimits,
    report: ShardReport,
    allow_missing: bool,
    unseen: set[str],
) -> Iterator[SpokenVideo]:
    """The videos whose files can be used; the others raise, or with allow_missing go into the report."""
    for narration in narrations:
        unseen.discard(narration.video_id)
        try:
            features, encoder = rows.read(narration.video_id), rows.encoder(narration.video_id)
            captions = narration.read()
            if narration.by_machine:
                captions = put_in_order(captions, narration.video_id, float(len(features)), limits, report)
            check_captions(captions, where=narration.where, duration=float(len(features)))
            if not narration.by_machine and limits.unit is not None:
                captions, num_repeated = unroll(captions)
                report.captions_repeated += num_repeated
            if not any(caption.text for caption in captions):
                raise ValueError(f"captions {narration.where} hold no words")
            yield SpokenVideo(narration.video_id, encoder, features, captions)
        except ValueError as error:
            if not allow_missing:
                raise
            report.missing[narration.video_id] = str(error)


def put_in_order(
    captions: list[Caption], video_id: str, duration: float, limits: CaptionLimits, report: ShardReport
) -> list[Caption]:
    """By `character`, as the original does it, captions are deduplicated in the file's order and sorted afterwards."""
    spoken = captions if limits.unit == "character" else sorted(captions, key=lambda caption: caption.start)
    if limits.unit is not None:
        coin = random.Random(limits.seed ^ zlib.crc32(video_id.encode()))
        spoken = deduplicate(spoken, previous_keeps=lambda: coin.random() < 0.5, unit=limits.unit)
        spoken.sort(key=lambda caption: caption.start)
        report.captions_repeated += len(captions) - len(spoken)
    inside = within(spoken, duration)
    report.captions_outside += len(spoken) - len(inside)
    return inside


Pieces = Callable[[list[str]], tuple[list[list[int]], list[bool]]]


def tokenized(videos: Iterator[SpokenVideo], pieces: Pieces) -> Iterator[TokenizedVideo]:
    """A group of videos at a time, since a fast tokenizer spreads a long list over all cores."""
    while together := list(islice(videos, TOKENIZED_TOGETHER)):
        texts = [caption.text for video in together for caption in video.captions]
        rows, cut = pieces(texts)
        ids, cuts = iter(rows), iter(cut)
        for video in together:
            number = len(video.captions)
            times = np.array([[caption.start, caption.end] for caption in video.captions])
            rows_of_words, num_cut = list(islice(ids, number)), sum(islice(cuts, number))
            yield TokenizedVideo(video.video_id, video.encoder, video.features, times, rows_of_words, num_cut)


def convert_mmpt_shards(
    features: Path, captions: Path, *, split: str, tokenizer: str, out: Path, videos_per_shard: int = 4096
) -> ShardReport:
    """Ours of the shards that MMPT wrote, see `mmpt_shards`. `tokenizer` is what made their word pieces."""
    words = load_tokenizer(tokenizer)
    report = ShardReport()
    videos = read_mmpt_shards(features, captions, split=split)
    first = next(videos, None)
    if first is None:
        raise ValueError(f"{features} holds no videos of split {split}")
    with ShardWriter(
        out,
        feature_dim=first.features.shape[1],
        encoder="unknown",
        tokenizer=describe_tokenizer(words, name=tokenizer),
        videos_per_shard=videos_per_shard,
    ) as writer:
        for video in track(chain([first], videos), "sharding"):
            inside = video.caption_times[:, 0] < len(video.features)
            if not inside.any():
                report.missing[video.video_id] = "no caption starts inside the video"
                continue
            highest = max((max(row) for row in video.tokens if row), default=0)
            if highest >= len(words):
                raise ValueError(
                    f"video '{video.video_id}': word piece {highest}, but {tokenizer} has {len(words)}: "
                    "another tokenizer made these shards"
                )
            tokens = [row for row, keep in zip(video.tokens, inside, strict=True) if keep]
            writer.add(video.video_id, video.features, video.caption_times[inside], tokens)
            report.add(len(video.features), len(tokens))
            report.captions_outside += int((~inside).sum())
    return report


def open_rows(folder: Path) -> "FeatureFiles | OnlyLengths":
    """Of a folder of features, or where it has none, of videos or cached frames."""
    if not folder.is_dir() or any(folder.glob("*.npy")):
        return FeatureFiles(folder)
    videos = open_videos(folder)
    return OnlyLengths(folder, videos) if videos.ids() else FeatureFiles(folder)


class FeatureFiles:
    """A folder of `{video_id}.npy`; an id may hold slashes, then its file is in a folder of the folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def ids(self) -> list[str]:
        files = (path.relative_to(self.folder) for path in files_below(self.folder) if path.suffix == ".npy")
        return sorted(path.as_posix().removesuffix(".npy") for path in files)

    def where(self, video_id: str) -> Path:
        return feature_file(self.folder, video_id)

    def has(self, video_id: str) -> bool:
        return self.where(video_id).is_file()

    def read(self, video_id: str) -> Float[np.ndarray, "T F"]:
        """ValueError for features that a shard can't hold."""
        path = self.where(video_id)
        features = read_features(path)
        if 0 in features.shape:
            raise ValueError(f"features {path} are empty: {features.shape[0]} rows of {features.shape[1]}")
        with np.errstate(over="ignore"):
            if not np.isfinite(features.astype(np.float16)).all():
                raise ValueError(f"{path}: features hold NaN or infinity (as float16)")
        return features

    def encoder(self, video_id: str) -> str:
        """The fingerprint that extraction left next to the features; 'unknown' for features from elsewhere."""
        about = self.where(video_id).with_suffix(".json")
        if not about.is_file():
            return "unknown"
        try:
            record = json.loads(about.read_text(encoding="utf-8"))
            seconds = record.get("max_seconds")
            return str(record["encoder"]) if seconds is None else f"{record['encoder']}, first {seconds} seconds"
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise ValueError(f"{about} is damaged: {error!r}") from error


class OnlyLengths:
    """Videos that frames are read of: a second of them has a row of width 0."""

    def __init__(self, folder: Path, videos: Videos) -> None:
        self.folder, self.videos = folder, videos

    def ids(self) -> list[str]:
        return self.videos.ids()

    def where(self, video_id: str) -> Path:
        return self.folder / video_id

    def has(self, video_id: str) -> bool:
        return video_id in self.videos

    def read(self, video_id: str) -> Float[np.ndarray, "T 0"]:
        return np.zeros((math.ceil(self.videos.duration(video_id)), 0), dtype=np.float16)

    def encoder(self, video_id: str) -> str:
        return "none"
