"""Embedding files: safetensors with `vectors` (N, D) float32, and the video or sentence of each row in the metadata."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

from rich.console import Console
from rich.progress import track
from safetensors.torch import save_file
from torch import Tensor

from mmpt_plugin.features.extract import extract
from mmpt_plugin.features.files import FeatureFolder
from mmpt_plugin.files import replace_file
from mmpt_plugin.models import CLIPModel, Embedder
from mmpt_plugin.models.embedding import build_encoder, read_ahead
from mmpt_plugin.video.store import VideoList, list_videos
from mmpt_plugin.video.workers import ExtractReport


def write_video_vectors(
    model: Embedder,
    videos: Sequence[Path],
    out: Path,
    *,
    num_workers: int = 1,
    truncate: bool = False,
) -> ExtractReport:
    """Write `out` with one row for each video that can be decoded; its metadata has the files under `videos`.

    For a model that reads features, its encoder computes them, and they are kept in a folder next to `out` for reuse. A
    model that reads frames decodes the files itself. With `truncate`, only the first max_video_len seconds of a video
    are read. The report names the videos that failed.
    """
    folder = out.with_name(f"{out.stem}_features")
    listed = list_videos(videos, out=folder)
    if isinstance(model, CLIPModel) and model.encoder is None:
        return write_frame_vectors(model, listed, out, num_threads=num_workers, truncate=truncate)
    if model.encoder is None:
        raise ValueError("this model has no encoder: pass `encoder` to VideoCLIP.from_pretrained")
    encoder = build_encoder(model.encoder)
    model.check_encoder(encoder)
    max_seconds = model.config.max_video_len if truncate else None
    report = extract(
        listed, folder, encoder=model.encoder, num_workers=num_workers, allow_missing=True, max_seconds=max_seconds
    )
    done = {video_id: path for video_id, path in listed.items() if str(path) not in report.failed}
    if done:
        rows = map(FeatureFolder(folder).read, done)
        write_vectors(out, model.embed_features(rows, truncate=truncate), "videos", list(map(str, done.values())))
    return report


def write_frame_vectors(
    model: CLIPModel, videos: VideoList, out: Path, *, num_threads: int, truncate: bool
) -> ExtractReport:
    """`write_video_vectors` for a model that reads frames."""
    model.check_whole_videos(truncate=truncate)
    report = ExtractReport(left_out=dict(videos.left_out))
    done: list[str] = []

    def read(path: Path) -> Tensor | ValueError:
        try:
            return model.read_frames(path)
        except ValueError as error:
            return error

    def readable() -> Iterator[Tensor]:
        ahead = zip(videos, read_ahead(read, videos, num_threads=num_threads), strict=True)
        for path, frames in track(ahead, "embedding", total=len(videos), console=Console(stderr=True)):
            if isinstance(frames, ValueError):
                report.failed[str(path)] = str(frames)
            else:
                done.append(str(path))
                yield frames

    vectors = model.embed_frames(readable())
    report.done = len(done)
    if done:
        write_vectors(out, vectors, "videos", done)
    return report


def write_text_vectors(model: Embedder, sentences: Path, out: Path) -> str:
    """Write `out` with one row for each line of a text file; its metadata has the lines under `text`."""
    try:
        lines = [line.strip() for line in sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{sentences} is not in UTF-8: {error.reason} at byte {error.start}") from error
    if not lines:
        raise ValueError(f"{sentences} contains no sentences")
    write_vectors(out, model.embed_text(lines), "text", lines)
    return f"{len(lines)} sentences in {out}"


def write_vectors(out: Path, vectors: Tensor, kind: str, names: list[str]) -> None:
    """Write an embedding file atomically; `kind`, "videos" or "text", is the metadata key of the rows' `names`."""
    metadata = {kind: json.dumps(names)}
    replace_file(out, lambda temporary: save_file({"vectors": vectors.contiguous()}, temporary, metadata=metadata))
