"""Creation of shards from features and captions.

T seconds, F feature width, N captions.
"""

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

from mmpt_plugin.features.files import FeatureFolder
from mmpt_plugin.shards.caption_sources import Narration, caption_source, within
from mmpt_plugin.shards.captions import Caption, check_captions
from mmpt_plugin.shards.deduplicate import Unit, deduplicate
from mmpt_plugin.shards.mmpt_shards import read_mmpt_shards
from mmpt_plugin.shards.rolling import unroll
from mmpt_plugin.shards.writer import ShardWriter
from mmpt_plugin.terminal import one_line
from mmpt_plugin.tokenizer import describe_tokenizer, load_tokenizer, num_ids, tokenize
from mmpt_plugin.video.frame_cache import open_videos
from mmpt_plugin.video.sparse_frames import Videos

NAMED = 10  # incomplete videos listed in a message
TOKENIZED_CHUNK = 64  # videos tokenized in one call


@dataclass
class ShardReport:
    """Numbers of videos and captions in the shards, and the videos that were skipped."""

    videos: int = 0
    seconds: int = 0
    """Number of feature rows."""
    captions: int = 0
    captions_cut: int = 0
    """Captions truncated to the limits."""
    captions_repeated: int = 0
    """Captions that were removed, merged into another, or shortened, because they repeated the previous one."""
    captions_outside: int = 0
    """Captions of speech recognition that were removed because they start after the end of their video, or have no
    duration."""
    missing: dict[str, str] = field(default_factory=dict)
    """Video id -> what is missing, or what is wrong with it."""

    def add(self, seconds: int, captions: int) -> None:
        """Count one video."""
        self.videos += 1
        self.seconds += seconds
        self.captions += captions

    def __str__(self) -> str:
        lines = [
            f"{self.videos} videos, {self.seconds} s, {self.captions} captions, {self.captions_cut} truncated "
            f"({self.captions_repeated} repeated the previous one, {self.captions_outside} outside the video removed)"
        ]
        lines += [one_line(f"skipped {video}: {reason}") for video, reason in islice(self.missing.items(), NAMED)]
        if len(self.missing) > NAMED:
            lines.append(f"skipped {len(self.missing) - NAMED} more")
        return "\n".join(lines)


@dataclass(frozen=True, kw_only=True)
class CaptionLimits:
    """Limits of the length of captions; the released VideoCLIP was trained with 96 characters and 32 tokens."""

    max_tokens: int = 32
    """Largest number of tokens of a caption; longer captions are truncated."""
    max_characters: int | None = None
    """Largest number of characters of a caption, before tokenization. Null means no limit."""
    unit: Unit | None = "word"
    """Unit in which repetitions in HowTo100M's captions are found and removed: word, or character as in the original.
    Null keeps repetitions, also those of rolling captions."""
    seed: int = 0
    """Seed of the random choice of the caption that keeps a repetition. Random numbers depend on this seed and the
    video's id."""


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
    """Write the shards of the listed videos, or of all videos with features (None), to the folder `out`.

    Features are read from `features/{id}.npy`. `captions` is a folder of subtitles, or a file that `caption_source`
    reads. For training on frames, `features` is a folder of videos or cached frames; the shards then have one row of
    width 0 per second.

    A video without features or captions, or with unusable files (captions must be in order and within their video), is
    a ValueError; with `allow_missing` it is skipped and reported. Captions of speech recognition are sorted and
    clipped instead, and the report counts the removed ones. Features of different encoders or widths are always a
    ValueError.
    """
    source = caption_source(captions)
    rows = open_rows(features)
    video_ids = rows.ids() if video_ids is None else list(dict.fromkeys(video_ids))
    if not video_ids:
        raise ValueError("the list of videos is empty")
    report = ShardReport()
    report.missing |= {v: f"no {rows.path(v)}" for v in video_ids if v not in rows}
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
    """The end of an error message: the first reasons in `missing`."""
    some = "; ".join(f"'{video}': {reason}" for video, reason in islice(missing.items(), NAMED))
    return f", such as {some[:1000]}" if some else f": {captions} has no captions for them"


def check_alike(video: "TokenizedVideo", first: "TokenizedVideo", rows: "FeatureFolder | OnlyLengths") -> None:
    """ValueError if the features of two videos are of different encoders or widths."""
    here, there = rows.path(video.video_id), rows.path(first.video_id)
    if video.encoder != first.encoder:
        raise ValueError(f"{here} and {there} are from different encoders")
    if video.features.shape[1] != first.features.shape[1]:
        widths = f"width {video.features.shape[1]}, {there} have width {first.features.shape[1]}"
        raise ValueError(f"features {here} have {widths}: all features of the shards must be from one encoder")


class SpokenVideo(NamedTuple):
    """A video with the text of its captions."""

    video_id: str
    encoder: str
    features: Float[np.ndarray, "T F"]
    captions: list[Caption]


class TokenizedVideo(NamedTuple):
    """A video with start and end (seconds) and token ids of its captions; `captions_cut` of them are truncated."""

    video_id: str
    encoder: str
    features: Float[np.ndarray, "T F"]
    times: Float[np.ndarray, "N 2"]
    tokens: list[list[int]]
    captions_cut: int


def usable(
    narrations: Iterable[Narration],
    rows: "FeatureFolder | OnlyLengths",
    limits: CaptionLimits,
    report: ShardReport,
    allow_missing: bool,
    unseen: set[str],
) -> Iterator[SpokenVideo]:
    """Yield the usable videos; others are a ValueError, or with `allow_missing` are listed in the report.

    Removes the videos that it has read from `unseen`.
    """
    for narration in narrations:
        unseen.discard(narration.video_id)
        try:
            features, encoder = read_rows(rows, narration.video_id), rows.encoder(narration.video_id)
            captions = narration.read()
            if narration.by_machine:
                captions = put_in_order(captions, narration.video_id, float(len(features)), limits, report)
            check_captions(captions, where=narration.where, duration=float(len(features)))
            if not narration.by_machine and limits.unit is not None:
                captions, num_repeated = unroll(captions)
                report.captions_repeated += num_repeated
            if not any(caption.text for caption in captions):
                raise ValueError(f"captions {narration.where} contain no words")
            yield SpokenVideo(narration.video_id, encoder, features, captions)
        except ValueError as error:
            if not allow_missing:
                raise
            report.missing[narration.video_id] = str(error)


def put_in_order(
    captions: list[Caption], video_id: str, duration: float, limits: CaptionLimits, report: ShardReport
) -> list[Caption]:
    """Deduplicate the captions of speech recognition, sort them, and clip them to the video.

    With unit `character`, captions are deduplicated in the order of the file and sorted afterwards, as in the original.
    """
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
    """Tokenize groups of videos together, because a fast tokenizer processes a long list on all cores."""
    while together := list(islice(videos, TOKENIZED_CHUNK)):
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
    """Convert shards of the original toolkit, MMPT; see `mmpt_shards`. `tokenizer` must be the one of their tokens."""
    words = load_tokenizer(tokenizer)
    known = num_ids(words)  # once: it reads the whole vocabulary
    report = ShardReport()
    videos = read_mmpt_shards(features, captions, split=split)
    first = next(videos, None)
    if first is None:
        raise ValueError(f"{features} contains no videos of split '{split}'")
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
            if highest >= known:
                raise ValueError(
                    f"video '{video.video_id}': token id {highest} is out of range, tokenizer {tokenizer} has "
                    f"{known} tokens: these shards were made with another tokenizer"
                )
            tokens = [row for row, keep in zip(video.tokens, inside, strict=True) if keep]
            try:
                writer.add(video.video_id, video.features, video.caption_times[inside], tokens)
            except ValueError as error:
                raise ValueError(f"{features}: {error}") from error
            report.add(len(video.features), len(tokens))
            report.captions_outside += int((~inside).sum())
    return report


def open_rows(folder: Path) -> "FeatureFolder | OnlyLengths":
    """The features of a folder; if it has none, the lengths of its videos or cached frames."""
    if not folder.is_dir() or any(folder.glob("*.npy")):
        return FeatureFolder(folder)
    videos = open_videos(folder)
    return OnlyLengths(folder, videos) if videos.ids() else FeatureFolder(folder)


def read_rows(rows: "FeatureFolder | OnlyLengths", video_id: str) -> Float[np.ndarray, "T F"]:
    """The features of a video; ValueError if they are empty, or not finite in float16."""
    features, path = rows.read(video_id), rows.path(video_id)
    if isinstance(rows, OnlyLengths):
        return features
    if 0 in features.shape:
        raise ValueError(f"features {path} are empty: {features.shape[0]} rows of {features.shape[1]}")
    with np.errstate(over="ignore"):
        if not np.isfinite(features.astype(np.float16)).all():
            raise ValueError(f"features {path} contain NaN or infinity (as float16)")
    return features


class OnlyLengths:
    """Replaces `FeatureFolder` if frames are read from videos: each second has a row of width 0."""

    def __init__(self, folder: Path, videos: Videos) -> None:
        self.folder, self.videos = folder, videos

    def ids(self) -> list[str]:
        """The ids of the videos."""
        return self.videos.ids()

    def path(self, video_id: str) -> Path:
        """The path that names a video in error messages."""
        return self.folder / video_id

    def __contains__(self, video_id: str) -> bool:
        return video_id in self.videos

    def read(self, video_id: str) -> Float[np.ndarray, "T 0"]:
        """One row of width 0 per second; the last second may be incomplete."""
        return np.zeros((math.ceil(self.videos.duration(video_id)), 0), dtype=np.float16)

    def encoder(self, video_id: str) -> str:
        """The fingerprint of the encoder: none."""
        return "none"
