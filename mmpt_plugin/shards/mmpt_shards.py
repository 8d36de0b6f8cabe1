"""Read the shards of MMPT, the original toolkit, which hold features and word pieces.

`{split}_meta.pkl` maps shard numbers to video ids. A ragged array consists of two files: `..._data.npy` with all rows,
and `..._starts.npy` with the first row of each item. The arrays are `{split}_{k}` (features),
`{captions}.{bert}.{split}_{k}.startends`, and `.caps_ids`, which is padded with -1.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from mmpt_plugin.files import read_array
from mmpt_plugin.shards.plain_pickle import read_plain_pickle


class ShardedVideo(NamedTuple):
    """One video of T seconds with N captions."""

    video_id: str
    features: Float[np.ndarray, "T F"]
    caption_times: Float[np.ndarray, "N 2"]
    tokens: list[list[int]]


def read_mmpt_shards(features: Path, captions: Path, *, split: str = "train") -> Iterator[ShardedVideo]:
    """All videos of a split, memory-mapped, in the order of its shards. ValueError if files are inconsistent."""
    meta = features / f"{split}_meta.pkl"
    shards = read_plain_pickle(meta)
    if not isinstance(shards, dict) or not all(isinstance(ids, list) for ids in shards.values()):
        raise ValueError(f"{meta} does not map shard numbers to lists of video ids")
    for number, video_ids in shards.items():
        rows = ragged(features / f"{split}_{number}", kinds="f")
        times = ragged(only(captions, f"*.{split}_{number}.startends"), kinds="iuf", width=2)
        ids = ragged(only(captions, f"*.{split}_{number}.caps_ids"), kinds="iu")
        for name, items in (("features", rows), ("startends", times), ("caps_ids", ids)):
            if len(items) != len(video_ids):
                raise ValueError(f"{meta}: shard {number} has {len(video_ids)} videos, but {name} for {len(items)}")
        for video_id, video, spoken, padded in zip(video_ids, rows, times, ids, strict=True):
            yield ShardedVideo(str(video_id), video, spoken, [row[row >= 0].tolist() for row in padded])


def only(folder: Path, pattern: str) -> Path:
    """The only file stem in `folder` that matches the pattern."""
    found = sorted({path.name.removesuffix("_data.npy") for path in folder.glob(f"{pattern}_data.npy")})
    if len(found) != 1:
        raise ValueError(f"{folder} has {len(found)} files {pattern}_data.npy, expected one {found or ''}".strip())
    return folder / found[0]


def ragged(stem: Path, *, kinds: str, width: int | None = None) -> Sequence[np.ndarray]:
    """The items of a ragged array, as views of its file; its rows have numbers of these `kinds` (`dtype.kind`)."""
    arrays = []
    for part in ("data", "starts"):
        arrays.append(read_array(stem.with_name(f"{stem.name}_{part}.npy")))
    data, starts = arrays
    if starts.ndim != 1 or len(starts) == 0 or starts[0] != 0 or starts[-1] != len(data) or (np.diff(starts) < 0).any():
        raise ValueError(f"{stem}_starts.npy does not fit {stem}_data.npy")
    if data.ndim != 2 or width not in (None, data.shape[1]) or data.dtype.kind not in kinds:
        expected = f"rows of {width or 'any number of'} numbers of kind {' or '.join(kinds)}"
        raise ValueError(f"{stem}_data.npy holds {data.dtype} of shape {data.shape}, expected {expected}")
    return [data[begin:end] for begin, end in zip(starts[:-1].tolist(), starts[1:].tolist(), strict=True)]
