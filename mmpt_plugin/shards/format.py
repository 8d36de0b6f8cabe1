"""The shard format: features and caption tokens of many videos in a few memory-mapped files, with checksums.

A shard is one safetensors file. index.json in the same folder, written last, lists the shards with size and CRC-32.
T seconds, F feature width, N captions, M tokens of one video.
"""

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
from jaxtyping import Float, Int
from safetensors import SafetensorError, safe_open

from mmpt_plugin.files import inside, offsets, read_json

INDEX = "index.json"
VERSION = 1
WIDEST = 2**16  # numbers in a feature row
BYTES_CHUNK = 1 << 22  # bytes read at a time for a checksum
SPECIAL_IDS = ("cls_id", "sep_id", "pad_id")

# The arrays of a shard of n videos: dtype, and for arrays with two dimensions the width (None: feature_dim).
LAYOUT: dict[str, tuple[str, tuple[int | None, ...]]] = {
    "features": ("float16", (None,)),
    "feature_offsets": ("int64", ()),  # n + 1: rows of video i are feature_offsets[i] to feature_offsets[i + 1]
    "caption_times": ("float32", (2,)),  # start and end in seconds
    "caption_offsets": ("int64", ()),  # n + 1
    "token_counts": ("int32", ()),  # one per caption
    "tokens": ("int32", ()),
}


@dataclass(frozen=True, slots=True, eq=False)
class VideoRecord:
    """One video, as read-only views of a shard, without copies."""

    video_id: str
    features: Float[np.ndarray, "T F"]
    """One row per second, float16."""
    caption_times: Float[np.ndarray, "N 2"]
    """Start and end of each caption in seconds."""
    token_counts: Int[np.ndarray, " N"]
    """Counts, not offsets: a sampler that joins many videos then needs only one cumulative sum over them."""
    tokens: Int[np.ndarray, " M"]
    """The word pieces of all captions, concatenated, without special tokens."""


class Shards(Sequence[VideoRecord]):
    """A folder of shards; `shards[i]` is a VideoRecord.

    Raises ValueError, naming the file, if a shard is missing, truncated or damaged. With `verify`, checksums and the
    range of token ids are verified; otherwise only sizes and layout. A pickled copy opens the files again in the other
    process, without verification.
    """

    def __init__(self, folder: Path, *, verify: bool = True) -> None:
        self.folder = folder
        index = read_index(folder)
        self.feature_dim = index.feature_dim
        self.encoder = index.encoder
        self.tokenizer = index.tokenizer
        cls_id = index.tokenizer["cls_id"]
        self.cls_id = None if cls_id is None else int(cls_id)
        self.sep_id, self.pad_id = (int(index.tokenizer[key]) for key in ("sep_id", "pad_id"))
        self.video_ids = [video for shard in index.shards for video in shard.video_ids]
        self._arrays, bounds = [], []
        for number, entry in enumerate(index.shards):
            path = inside(folder, entry.file)
            arrays = open_shard(path, entry, verify=verify)
            bounds.append(video_bounds(arrays, entry, number, index.feature_dim, path))
            if verify:
                check_tokens(arrays["tokens"], index.tokenizer.get("vocab_size"), path)
            self._arrays.append(tuple(arrays[name] for name in ("features", "caption_times", "token_counts", "tokens")))
        # One array: Python objects of a million videos would be copied to every worker, because of reference counting.
        self._bounds = np.concatenate(bounds)

    def __len__(self) -> int:
        return len(self.video_ids)

    @overload
    def __getitem__(self, i: int) -> VideoRecord: ...
    @overload
    def __getitem__(self, i: slice) -> list[VideoRecord]: ...
    def __getitem__(self, i: int | slice) -> VideoRecord | list[VideoRecord]:
        if isinstance(i, slice):
            return [self[j] for j in range(*i.indices(len(self)))]
        shard, row, row_end, caption, caption_end, token, token_end = self._bounds[i].tolist()
        features, times, counts, tokens = self._arrays[shard]
        return VideoRecord(
            self.video_ids[i],
            features[row:row_end],
            times[caption:caption_end],
            counts[caption:caption_end],
            tokens[token:token_end],
        )

    def index_of(self, video_id: str) -> int:
        """The index i with `video_ids[i] == video_id`."""
        if video_id not in self._numbers:
            raise ValueError(f"no video '{video_id}' among the {len(self)} of {self.folder}")
        return self._numbers[video_id]

    @cached_property
    def _numbers(self) -> dict[str, int]:
        return {video_id: i for i, video_id in enumerate(self.video_ids)}

    def __reduce__(self) -> tuple[Any, ...]:
        return reopen, (self.folder,)


def reopen(folder: Path) -> Shards:
    """Open the shards of a pickled copy, without verifying checksums."""
    return Shards(folder, verify=False)


@dataclass(frozen=True, kw_only=True)
class ShardEntry:
    """The index's entry for one shard file, with its size, CRC-32 and videos."""

    file: str
    bytes: int
    crc32: int
    video_ids: list[str]


@dataclass(frozen=True, kw_only=True)
class ShardIndex:
    """The content of index.json."""

    version: int = VERSION
    feature_dim: int
    encoder: str
    """The encoder's fingerprint: equal for compatible features."""
    tokenizer: dict[str, Any]
    """The record of the tokenizer, including cls_id, sep_id and pad_id."""
    shards: list[ShardEntry]

    def __post_init__(self) -> None:
        if not isinstance(self.feature_dim, int) or not 0 <= self.feature_dim <= WIDEST:
            raise ValueError(f"feature_dim must be 0 to {WIDEST}, got {self.feature_dim!r}")
        for key in SPECIAL_IDS:
            none = key == "cls_id" and self.tokenizer.get(key, 0) is None  # texts begin with their first word
            if not none and not isinstance(self.tokenizer.get(key), int):
                raise ValueError(f"the tokenizer's {key} must be an integer, got {self.tokenizer.get(key)!r}")
            size = self.tokenizer.get("vocab_size")
            if not none and isinstance(size, int) and not 0 <= self.tokenizer[key] < size:
                raise ValueError(f"the tokenizer's {key} is {self.tokenizer[key]}, but it has {size} word pieces")


def read_index(folder: Path) -> ShardIndex:
    """Read index.json; ValueError if it is missing, damaged or of another version."""
    path = folder / INDEX
    if not path.is_file():
        raise ValueError(f"no shards in {folder}: it has no {INDEX}")
    try:
        raw = read_json(path)
        if raw["version"] == VERSION:
            return ShardIndex(**raw | {"shards": [ShardEntry(**entry) for entry in raw["shards"]]})
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged: {error!r}") from error
    raise ValueError(f"{path} has version {raw['version']}, this program reads version {VERSION}")


def open_shard(path: Path, entry: ShardEntry, *, verify: bool) -> dict[str, np.ndarray]:
    """The memory-mapped, read-only arrays of a shard."""
    if not path.is_file():
        raise ValueError(f"shard {path} is missing")
    if path.stat().st_size != entry.bytes:
        raise ValueError(f"shard {path} has {path.stat().st_size} bytes, its index says {entry.bytes}")
    if verify and (found := checksum(path)) != entry.crc32:
        raise ValueError(f"shard {path} is damaged: its checksum is {found}, its index says {entry.crc32}")
    try:
        # Read as tensors, because safetensors copies the data for NumPy arrays.
        with safe_open(path, framework="pt") as file:
            arrays: dict[str, np.ndarray] = {name: file.get_tensor(name).numpy() for name in LAYOUT}
    except SafetensorError as error:
        raise ValueError(f"shard {path} is damaged: {error}") from error
    for array in arrays.values():
        array.flags.writeable = False
    return arrays


def video_bounds(
    arrays: Mapping[str, np.ndarray], entry: ShardEntry, number: int, feature_dim: int, path: Path
) -> Int[np.ndarray, "V 7"]:
    """For each video the number of its shard, and its first and last (exclusive) row, caption and token."""
    for name, (dtype, width) in LAYOUT.items():
        expected = tuple(feature_dim if size is None else size for size in width)
        if arrays[name].dtype != dtype or arrays[name].ndim == 0 or arrays[name].shape[1:] != expected:
            found = f"{arrays[name].dtype} {arrays[name].shape}"
            raise ValueError(f"shard {path} does not fit its index: {name} are {found}, expected {dtype} of {expected}")
    rows, captions = arrays["feature_offsets"], arrays["caption_offsets"]
    token_offsets = offsets(arrays["token_counts"])
    for name, ends, num_ends, total in (
        ("features", rows, len(entry.video_ids) + 1, len(arrays["features"])),
        ("captions", captions, len(entry.video_ids) + 1, len(arrays["caption_times"])),
        ("tokens", token_offsets, len(arrays["caption_times"]) + 1, len(arrays["tokens"])),
    ):
        if len(ends) != num_ends or ends[0] != 0 or ends[-1] != total or (np.diff(ends) < 0).any():
            raise ValueError(f"shard {path} does not fit its index: the bounds of its {name} are wrong")
    tokens = token_offsets[captions]
    numbers = np.full(len(entry.video_ids), number)
    return np.stack([numbers, rows[:-1], rows[1:], captions[:-1], captions[1:], tokens[:-1], tokens[1:]], axis=1)


def check_tokens(tokens: Int[np.ndarray, " N"], vocab_size: Any, path: Path) -> None:
    """ValueError for a token id that the index's tokenizer does not have, if it says how many it has."""
    if isinstance(vocab_size, int) and len(tokens) and not 0 <= tokens.min() <= tokens.max() < vocab_size:
        raise ValueError(
            f"shard {path} does not fit its index: it has the token ids {tokens.min()} to {tokens.max()}, but the "
            f"tokenizer {vocab_size} word pieces"
        )


def checksum(path: Path) -> int:
    """The CRC-32 of a file, which detects damage and is faster to compute than a disk can read."""
    value = 0
    with path.open("rb") as file:
        while chunk := file.read(BYTES_CHUNK):
            value = zlib.crc32(chunk, value)
    return value
