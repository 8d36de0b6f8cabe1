"""Features and caption files -> shards."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from rich.progress import track

from mmpt_plugin.clips.captions import SUFFIXES, check_captions, load_tokenizer, read_captions, tokenize
from mmpt_plugin.features.extract import read_features
from mmpt_plugin.features.shards import ShardWriter


@dataclass
class ShardReport:
    """What went into the shards, and what did not."""

    videos: int = 0
    seconds: int = 0
    captions: int = 0
    captions_cut: int = 0
    missing: dict[str, str] = field(default_factory=dict)
    """Video id -> what it lacks."""

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
) -> ShardReport:
    """Shards in `out` of the listed videos, from `features/{id}.npy` and `captions/{id}.vtt|.srt|.jsonl`.

    A listed video without features or captions is an error, or with allow_missing left out and reported. Captions
    must be in order and within their video.
    """
    if not video_ids:
        raise ValueError("the list of videos is empty")
    report = ShardReport()
    present = list(find(video_ids, features, captions, report))
    if report.missing and not allow_missing:
        first, reason = next(iter(report.missing.items()))
        raise ValueError(
            f"{len(report.missing)} of {len(video_ids)} videos are incomplete, such as '{first}': {reason}"
        )
    if not present:
        raise ValueError(f"none of the {len(video_ids)} videos has both features and captions")
    words = load_tokenizer(tokenizer)
    about = {"name": tokenizer, "vocab_size": len(words)}
    about |= {f"{key}_id": getattr(words, f"{key}_token_id") for key in ("cls", "sep", "pad")}
    width = read_features(present[0][1]).shape[1]
    with ShardWriter(
        out, feature_dim=width, encoder=features.name, tokenizer=about, videos_per_shard=videos_per_shard
    ) as writer:
        for video_id, feature_file, caption_file in track(present, "sharding"):
            rows, spoken = read_features(feature_file), read_captions(caption_file)
            check_captions(spoken, where=str(caption_file), duration=float(len(rows)))
            ids, cut = tokenize([caption.text for caption in spoken], words)
            times = np.array([[caption.start, caption.end] for caption in spoken], dtype=np.float32).reshape(-1, 2)
            writer.add(video_id, rows, times, ids)
            report.videos += 1
            report.seconds += len(rows)
            report.captions += len(spoken)
            report.captions_cut += cut
    return report


def find(
    video_ids: Sequence[str], features: Path, captions: Path, report: ShardReport
) -> Iterable[tuple[str, Path, Path]]:
    """(id, feature file, caption file) of the videos that have both; the others go into report.missing."""
    for video_id in video_ids:
        feature_file = features / f"{video_id}.npy"
        caption_file = next((path for suffix in SUFFIXES if (path := captions / f"{video_id}{suffix}").is_file()), None)
        if not feature_file.is_file():
            report.missing[video_id] = f"no {feature_file}"
        elif caption_file is None:
            report.missing[video_id] = f"no {video_id} with {' or '.join(SUFFIXES)} in {captions}"
        else:
            yield video_id, feature_file, caption_file
