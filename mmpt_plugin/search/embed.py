"""Files of vectors: a safetensors file with `vectors` (N, D) float32, and in its metadata what each row is of."""

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file
from torch import Tensor

from mmpt_plugin.checkpoint import write_whole
from mmpt_plugin.features.extract import ExtractReport, extract, list_videos
from mmpt_plugin.features.files import read_features
from mmpt_plugin.models import Embedder


def write_video_vectors(
    model: Embedder,
    videos: Sequence[Path],
    out: Path,
    *,
    num_workers: int = 1,
    truncate: bool = False,
) -> ExtractReport:
    """`out` with a row for each video that can be decoded, and `videos`, their files, in its metadata.

    Features are made by the model's own encoder, and kept in a folder beside `out` to be used again. The report names
    the videos that failed.
    """
    if model.encoder is None:
        raise ValueError("this model came without an encoder, see VideoCLIP.from_pretrained")
    folder = out.with_name(f"{out.stem}_features")
    report = extract(videos, folder, encoder=model.encoder, num_workers=num_workers, allow_missing=True)
    files = [path for path in list_videos(videos) if str(path) not in report.failed]
    if files:
        rows = (read_features(folder / f"{path.stem}.npy") for path in files)
        write_vectors(out, model.embed_features(rows, truncate=truncate), "videos", [str(path) for path in files])
    return report


def write_text_vectors(model: Embedder, sentences: Path, out: Path) -> str:
    """`out` with a row for each line of a text file, and `text`, the lines, in its metadata."""
    try:
        lines = [line.strip() for line in sentences.read_text(encoding="utf-8").splitlines() if line.strip()]
    except UnicodeDecodeError as error:
        raise ValueError(f"{sentences} is not in UTF-8: {error.reason} at byte {error.start}") from error
    if not lines:
        raise ValueError(f"{sentences} holds no sentences")
    write_vectors(out, model.embed_text(lines), "text", lines)
    return f"{len(lines)} sentences in {out}"


def write_vectors(out: Path, vectors: Tensor, kind: str, names: list[str]) -> None:
    out.parent.mkdir(parents=True, exist_ok=True)
    metadata = {kind: json.dumps(names)}
    write_whole(out, lambda beside: save_file({"vectors": vectors.contiguous()}, beside, metadata=metadata))
