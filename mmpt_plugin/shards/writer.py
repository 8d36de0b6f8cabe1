"""Write a folder of shards atomically."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from types import TracebackType
from typing import Any

import numpy as np
from jaxtyping import Float
from safetensors.numpy import save_file

from mmpt_plugin.files import atomic_write, offsets, replace_folder, temporary_folder, write_failures, writing
from mmpt_plugin.shards.format import INDEX, ShardEntry, ShardIndex, VideoRecord, checksum


class ShardWriter:
    """Context manager that writes a folder of shards atomically; it replaces existing shards in the folder.

    Existing shards stay until the new ones are complete. ValueError if another process writes to the folder.
    `tokenizer` is a record of the tokenizer (`describe_tokenizer`) with at least cls_id, sep_id and pad_id. One shard
    is in memory at a time, in up to two copies.
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
        if out.exists() and not (out / INDEX).is_file() and not (out.is_dir() and not any(out.iterdir())):
            raise ValueError(f"{out} contains something other than shards: choose another folder")
        if videos_per_shard < 1:
            raise ValueError(f"videos_per_shard must be at least 1, got {videos_per_shard}")
        self.out = out.absolute()
        self.temporary = Path()
        self.open = ExitStack()
        self.videos_per_shard = videos_per_shard
        self.index = ShardIndex(feature_dim=feature_dim, encoder=encoder, tokenizer=dict(tokenizer), shards=[])
        self.seen: set[str] = set()
        self.pending: list[VideoRecord] = []

    def __enter__(self) -> "ShardWriter":
        with ExitStack() as entered:
            entered.enter_context(writing(self.out, replaced=True))
            self.temporary = entered.enter_context(temporary_folder(self.out)) / self.out.name
            self.temporary.mkdir()
            self.open = entered.pop_all()
        return self

    def add(
        self,
        video_id: str,
        features: Float[np.ndarray, "T F"],
        caption_times: Float[np.ndarray, "N 2"],
        tokens: Sequence[Sequence[int]],
    ) -> None:
        """Add a video; if it is invalid, raise a ValueError that names it, and do not add it."""
        if video_id in self.seen:
            raise ValueError(f"video '{video_id}' is added twice")
        width = self.index.feature_dim
        if features.shape[1:] != (width,):
            raise ValueError(f"video '{video_id}': features have shape {features.shape}, expected (T, {width})")
        if len(features) == 0 or len(caption_times) == 0:
            raise ValueError(f"video '{video_id}' has {len(features)} s of features and {len(caption_times)} captions")
        if len(tokens) != len(caption_times):
            raise ValueError(f"video '{video_id}' has {len(caption_times)} captions, but tokens for {len(tokens)}")
        with np.errstate(over="ignore"):
            rows, times = features.astype(np.float16), caption_times.astype(np.float32)
        for name, array in (("features", rows), ("caption times", times)):
            if not np.isfinite(array).all():
                raise ValueError(f"video '{video_id}': {name} hold NaN or infinity (as {array.dtype})")
        counts = np.fromiter(map(len, tokens), dtype=np.int32)
        try:
            flat = np.fromiter(chain.from_iterable(tokens), dtype=np.int32)
        except OverflowError:
            raise ValueError(f"video '{video_id}': a token id is not an int32") from None
        self.seen.add(video_id)
        self.pending.append(VideoRecord(video_id, rows, times, counts, flat))
        if len(self.pending) == self.videos_per_shard:
            self._flush()

    def _flush(self) -> None:
        videos, self.pending = self.pending, []
        arrays = {
            "features": np.concatenate([video.features for video in videos]),
            "feature_offsets": offsets([len(video.features) for video in videos]),
            "caption_times": np.concatenate([video.caption_times for video in videos]),
            "caption_offsets": offsets([len(video.caption_times) for video in videos]),
            "token_counts": np.concatenate([video.token_counts for video in videos]),
            "tokens": np.concatenate([video.tokens for video in videos]),
        }
        path = self.temporary / f"shard-{len(self.index.shards):05d}.safetensors"
        atomic_write(path, lambda file: save_file(arrays, file))
        self.index.shards.append(
            ShardEntry(
                file=path.name,
                bytes=path.stat().st_size,
                crc32=checksum(path),
                video_ids=[video.video_id for video in videos],
            )
        )

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        with self.open:
            if error is not None:
                raise error
            self._finish()

    def _finish(self) -> None:
        if self.pending:
            self._flush()
        if not self.index.shards:
            raise ValueError(f"no videos for the shards in {self.out}")
        content = json.dumps(asdict(self.index))
        atomic_write(self.temporary / INDEX, lambda file: file.write_text(content, encoding="utf-8"))
        with write_failures(self.out):
            replace_folder(self.temporary, self.out)
