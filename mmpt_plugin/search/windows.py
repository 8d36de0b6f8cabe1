"""Video files -> the vectors of their windows, with any model that embeds videos.

N windows, T feature rows or frames, F width of a feature, D width of the vectors.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmpt_plugin.features.extract import encode
from mmpt_plugin.files import file_sha256
from mmpt_plugin.models import CLIPModel, Embedder, load_model
from mmpt_plugin.models.embedding import build_encoder, sliding_windows
from mmpt_plugin.protocols import Encoder
from mmpt_plugin.search.stores.store import StoredVideo, Windows
from mmpt_plugin.video.decode import VideoInfo, read_squares, timed
from mmpt_plugin.video.sparse_frames import distinct_frames, sample_times
from mmpt_plugin.video.workers import advance

WINDOWS_CHUNK = 32  # windows of frames in memory at a time
FRAMES_CHUNK = 64  # frames that the vision tower encodes at a time


@dataclass(frozen=True)
class WindowWork:
    """Compute the windows of a video file: the work of one process."""

    model: Embedder
    encoder: Encoder | None
    window: int
    hop: int

    def __call__(self, video_id: str, path: Path) -> tuple[StoredVideo, Windows]:
        """The record and the windows of a file; the record's `root` is still empty. ValueError if it can't be read."""
        about = path.stat()
        if self.encoder is not None:
            windows = feature_windows(self.model, encode(path, self.encoder), window=self.window, hop=self.hop)
            duration = float(windows.ends[-1])
        else:
            info = timed(path)
            assert isinstance(self.model, CLIPModel)
            windows = frame_windows(self.model, path, info, window=self.window, hop=self.hop)
            duration = info.duration
        if not np.isfinite(windows.vectors).all():
            raise ValueError(f"{path}: its vectors hold NaN or infinity")
        return StoredVideo("", about.st_size, about.st_mtime_ns, file_sha256(path), duration), windows


def window_work(model: str, options: Mapping[str, Any], window: int, hop: int) -> WindowWork:
    """Load the model, and its encoder, in the process that uses them."""
    return work_of(load_model(model, **options), window, hop)


def work_of(model: Embedder, window: int, hop: int) -> WindowWork:
    """The work with a model that is loaded; ValueError for a model that cannot read video files."""
    if isinstance(model, CLIPModel) and model.encoder is None:
        return WindowWork(model, None, window, hop)
    if model.encoder is None:
        raise ValueError("this model reads features, and has no encoder: pass --encoder, the one it was trained with")
    encoder = build_encoder(model.encoder)
    model.check_encoder(encoder)
    if window > model.config.max_video_len:
        raise ValueError(f"window {window} is longer than the model's max_video_len, {model.config.max_video_len} s")
    return WindowWork(model, encoder, window, hop)


def feature_windows(model: Embedder, features: Float[np.ndarray, "T F"], *, window: int, hop: int) -> Windows:
    """The windows of a video whose feature rows are seconds."""
    spans = sliding_windows(len(features), window=window, hop=hop)
    (vectors,) = model.embed_candidates([features], window=window, hop=hop)
    return windows_of(spans, vectors)


@torch.inference_mode()
def frame_windows(model: CLIPModel, path: Path, info: VideoInfo, *, window: int, hop: int) -> Windows:
    """The windows of a video whose frames the model reads; a frame that several windows share is encoded once."""
    whole = sliding_windows(math.ceil(info.duration), window=window, hop=hop)
    spans = [(float(start), float(min(end, info.duration))) for start, end in whole]
    vectors = []
    for first in range(0, len(spans), WINDOWS_CHUNK):
        some = spans[first : first + WINDOWS_CHUNK]
        vectors.append(model.embed_frames(clips_of(model, path, info, some)))
        advance(some[-1][1] - (spans[first - 1][1] if first else 0))
    return windows_of(spans, torch.cat(vectors))


def clips_of(
    model: CLIPModel, path: Path, info: VideoInfo, spans: Sequence[tuple[float, float]]
) -> Iterator[Float[Tensor, "T F"]]:
    """For each span, the frames that the model samples of it, as vectors of its vision tower."""
    times_of = [
        sample_times(start, end, model.config.frames, duration=info.duration, fps=info.fps) for start, end in spans
    ]
    times = sorted({time for own in times_of for time in own})
    pictures, shown = distinct_frames(times, read_squares(path, times, size=model.config.image_size))
    device = next(model.parameters()).device
    chunks = [pictures[first : first + FRAMES_CHUNK] for first in range(0, len(pictures), FRAMES_CHUNK)]
    rows = torch.cat([model.backbone.images(torch.from_numpy(np.stack(some)).to(device)) for some in chunks])
    for own in times_of:
        yield rows[list(dict.fromkeys(shown[time] for time in own))]


def windows_of(spans: Sequence[tuple[float | int, float | int]], vectors: Float[Tensor, "N D"]) -> Windows:
    """Spans and their vectors as arrays."""
    starts, ends = np.array(spans, dtype=np.float64).reshape(-1, 2).T
    return Windows(starts, ends, vectors.numpy())
