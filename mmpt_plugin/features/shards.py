"""Shards: many videos' features and caption tokens in few memory-mapped files, with an index and checksums.

A shard is one safetensors file; index.json beside the shards, written last, names them with size and CRC-32.
"""

import json
import shutil
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

INDEX = "index.json"
VERSION = 1
CHUNK = 1 << 22


@dataclass(frozen=True, slots=True)
class VideoRecord:
    """One video: views into a shard, nothing copied."""

    video_id: str
    features: Float[np.ndarray, "T F"]
    """A row a second, float16."""
    caption_times: Float[np.ndarray, "N 2"]
    """Start and end of each caption in seconds."""
    token_counts: Int[np.ndarray, " N"]
    tokens: Int[np.ndarray, " M"]
    """The captions' word pieces one after another, without special tokens."""


class Shards(Sequence[VideoRecord]):
    """A folder of shards, opened and checked; `shards[i]` is a VideoRecord.

    Raises ValueError, naming the file, where a shard is missing, truncated or damaged. With `verify` every byte
    is read once for its checksum; without, sizes and layout are checked. A copy sent to another process opens
    the files again by itself, unverified.
    """

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        self.folder = folder
        index = read_index(folder)
        self.feature_dim: int = index["feature_dim"]
        self.encoder: str = index["encoder"]
        self.tokenizer: dict[str, Any] = index["tokenizer"]
        self.cls_id, self.sep_id, self.pad_id = (int(self.tokenizer[key]) for key in ("cls_id", "sep_id", "pad_id"))
        self.video_ids: list[str] = [video for shard in index["shards"] for video in shard["video_ids"]]
        self._shards = [open_shard(folder / shard["file"], shard, index, verify=verify) for shard in index["shards"]]
        sizes = [len(shard["video_ids"]) for shard in index["shards"]]
        self._place = [(number, i) for number, size in enumerate(sizes) for i in range(size)]

    def __len__(self) -> int:
        return len(self.video_ids)

    def __getitem__(self, i: Any) -> Any:
        number, local = self._place[i]
        features, times, counts, tokens, bounds = self._shards[number]
        row, row_end, caption, caption_end, token, token_end = bounds[local]
        return VideoRecord(
            self.video_ids[i],
            features[row:row_end],
            times[caption:caption_end],
            counts[caption:caption_end],
            tokens[token:token_end],
        )

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen, (self.folder,)


def reopen(folder: Path) -> Shards:
    return Shards(folder, verify=False)


def read_index(folder: Path) -> dict[str, Any]:
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(f"no shards in {folder}: it has no {INDEX}")
    try:
        index: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        version = index["version"]
    except (json.JSONDecodeError, UnicodeDecodeError, KeyError, TypeError) as error:
        raise ValueError(f"{path} is damaged: {error}") from error
    if version != VERSION:
        raise ValueError(f"{path} is of version {version}, this is for version {VERSION}")
    return index


def open_shard(path: Path, entry: Mapping[str, Any], index: Mapping[str, Any], *, verify: bool) -> tuple[Any, ...]:
    """Memory-mapped arrays of a shard, and for each video the bounds of its rows, captions and tokens."""
    if not path.is_file():
        raise ValueError(f"shard {path} is missing")
    if path.stat().st_size != entry["bytes"]:
        raise ValueError(f"shard {path} has {path.stat().st_size} bytes, its index says {entry['bytes']}")
    if verify and (found := checksum(path)) != entry["crc32"]:
        raise ValueError(f"shard {path} is damaged: its checksum is {found}, its index says {entry['crc32']}")
    try:
        with safe_open(path, framework="pt") as file:
            arrays = {name: file.get_tensor(name).numpy() for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise ValueError(f"shard {path} is damaged: {error}") from error
    rows, captions = arrays["feature_offsets"], arrays["caption_offsets"]
    token_offsets = np.concatenate([[0], np.cumsum(arrays["token_counts"], dtype=np.int64)])
    right = (
        len(rows) == len(captions) == len(entry["video_ids"]) + 1
        and rows[-1] == len(arrays["features"])
        and captions[-1] == len(arrays["caption_times"]) == len(arrays["token_counts"])
        and token_offsets[-1] == len(arrays["tokens"])
        and arrays["features"].shape[1] == index["feature_dim"]
    )
    if not right:
        raise ValueError(f"shard {path} does not fit its index")
    tokens = token_offsets[captions]
    bounds = np.stack([rows[:-1], rows[1:], captions[:-1], captions[1:], tokens[:-1], tokens[1:]], axis=1)
    return (
        arrays["features"],
        arrays["caption_times"],
        arrays["token_counts"],
        arrays["tokens"],
        bounds.tolist(),
    )


def checksum(path: Path) -> int:
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(CHUNK):
            value = zlib.crc32(chunk, value)
    return value


class ShardWriter:
    """Context manager that writes a folder of shards, whole or not at all.

    `tokenizer` holds the tokenizer's name and its cls_id, sep_id and pad_id; at most one shard is in memory.
    """

    def __init__(
        self,
        out: Path,
        *,
        feature_dim: int,
        encoder: str,
        tokenizer: Mapping[str, Any],
        videos_per_shard: int = 4096,
    ) -> None:
        if out.exists() and any(out.iterdir()) and not (out / INDEX).is_file():
            raise ValueError(f"{out} holds something else than shards: choose another folder")
        self.out = out
        self.beside = out.with_name(f".{out.name}.tmp")
        self.videos_per_shard = videos_per_shard
        self.index = {
            "version": VERSION,
            "feature_dim": feature_dim,
            "encoder": encoder,
            "tokenizer": dict(tokenizer),
        }
        self.entries: list[dict[str, Any]] = []
        self.seen: set[str] = set()
        self.pending: list[VideoRecord] = []

    def __enter__(self) -> "ShardWriter":
        shutil.rmtree(self.beside, ignore_errors=True)
        self.beside.mkdir(parents=True)
        return self

    def add(
        self,
        video_id: str,
        features: Float[np.ndarray, "T F"],
        caption_times: Float[np.ndarray, "N 2"],
        tokens: Sequence[Sequence[int]],
    ) -> None:
        """One video; ValueError, naming it, where something is wrong with it."""
        rows = features.astype(np.float16)
        if video_id in self.seen:
            raise ValueError(f"video '{video_id}' comes twice")
        if rows.ndim != 2 or rows.shape[1] != self.index["feature_dim"]:
            raise ValueError(
                f"video '{video_id}': features have shape {rows.shape}, expected (T, {self.index['feature_dim']})"
            )
        if len(rows) == 0 or len(caption_times) == 0:
            raise ValueError(f"video '{video_id}' has {len(rows)} s of features and {len(caption_times)} captions")
        if not np.isfinite(rows).all():
            raise ValueError(f"video '{video_id}': features hold NaN or infinity")
        self.seen.add(video_id)
        counts = np.array([len(ids) for ids in tokens], dtype=np.int32)
        flat = np.array([token for ids in tokens for token in ids], dtype=np.int32)
        self.pending.append(VideoRecord(video_id, rows, caption_times.astype(np.float32), counts, flat))
        if len(self.pending) == self.videos_per_shard:
            self._flush()

    def _flush(self) -> None:
        def offsets(lengths: Iterator[int]) -> np.ndarray:
            return np.concatenate([[0], np.cumsum(list(lengths), dtype=np.int64)])

        arrays = {
            "features": np.concatenate([video.features for video in self.pending]),
            "feature_offsets": offsets(len(video.features) for video in self.pending),
            "caption_times": np.concatenate([video.caption_times for video in self.pending]),
            "caption_offsets": offsets(len(video.caption_times) for video in self.pending),
            "token_counts": np.concatenate([video.token_counts for video in self.pending]),
            "tokens": np.concatenate([video.tokens for video in self.pending]),
        }
        path = self.beside / f"shard-{len(self.entries):05d}.safetensors"
        save_file(arrays, path)
        entry = {"file": path.name, "bytes": path.stat().st_size, "crc32": checksum(path)}
        self.entries.append(entry | {"video_ids": [video.video_id for video in self.pending]})
        self.pending = []

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self._finish()
        finally:
            shutil.rmtree(self.beside, ignore_errors=True)

    def _finish(self) -> None:
        if self.pending:
            self._flush()
        if not self.entries:
            raise ValueError(f"no videos for the shards in {self.out}")
        text = json.dumps({**self.index, "shards": self.entries})
        (self.beside / INDEX).write_text(text, encoding="utf-8")
        shutil.rmtree(self.out, ignore_errors=True)
        self.beside.rename(self.out)
