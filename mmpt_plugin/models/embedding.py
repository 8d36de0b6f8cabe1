"""Raw videos and sentences -> vectors, and the labels nearest to them: a trained model in use.

V videos, Q sentences, T seconds, F feature width, D hidden width.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmpt_plugin import registry
from mmpt_plugin.features.encoder import Encoder

if TYPE_CHECKING:
    from mmpt_plugin.models.videoclip import VideoCLIP


def read_videos(
    paths: Iterable[str | Path], encoder: str | Mapping[str, Any] | Encoder
) -> Iterator[Float[np.ndarray, "T F"]]:
    """The features of each video file, one row a second, as training reads them."""
    from mmpt_plugin.features.extract import encode  # PyAV is an extra

    named = {"_name": encoder} if isinstance(encoder, str) else encoder
    built: Encoder = registry.encoders.build(named) if isinstance(named, Mapping) else named
    for path in paths:
        yield encode(Path(path), built)


@torch.inference_mode()
def embed_features(
    model: "VideoCLIP",
    features: Iterable[Float[np.ndarray, "_ F"]],
    *,
    truncate: bool = False,
    batch_size: int = 64,
) -> Float[Tensor, "V D"]:
    """One vector a video: the mean over the equal windows it is cut into, each of at most max_video_len seconds."""
    longest, width = model.config.max_video_len, model.config.feature_dim
    vectors: list[Tensor] = []
    window_counts: list[int] = []
    waiting: list[Tensor] = []
    for number, video in enumerate(features):
        if video.ndim != 2 or video.shape[1] != width or len(video) == 0:
            raise ValueError(f"features of video {number} have shape {video.shape}, the model takes (T, {width})")
        rows = torch.from_numpy(np.array(video[:longest] if truncate else video))
        windows = rows.tensor_split(-(-len(rows) // longest))
        window_counts.append(len(windows))
        waiting += windows
        while len(waiting) >= batch_size:
            vectors.append(encode_windows(model, waiting[:batch_size]))
            del waiting[:batch_size]
    if waiting:
        vectors.append(encode_windows(model, waiting))
    if not vectors:
        return torch.zeros(0, model.config.hidden_size)
    return torch.stack([video.mean(dim=0) for video in torch.split(torch.cat(vectors), window_counts)])


def encode_windows(model: "VideoCLIP", windows: Sequence[Float[Tensor, "_ F"]]) -> Float[Tensor, "B D"]:
    device = next(model.parameters()).device
    rows = torch.nn.utils.rnn.pad_sequence(list(windows), batch_first=True).to(device)
    lengths = torch.tensor([len(window) for window in windows], device=device)
    mask = torch.arange(rows.shape[1], device=device) < lengths[:, None]
    return model.encode_video(rows, mask).float().cpu()


@torch.inference_mode()
def embed_text(model: "VideoCLIP", sentences: Sequence[str], *, batch_size: int = 256) -> Float[Tensor, "Q D"]:
    vectors = [
        model.encode_text(sentences[begin : begin + batch_size]).float().cpu()
        for begin in range(0, len(sentences), batch_size)
    ]
    return torch.cat(vectors) if vectors else torch.zeros(0, model.config.hidden_size)


def classify(
    model: "VideoCLIP", videos: Float[Tensor, "V D"], prompts: Mapping[str, Sequence[str]]
) -> list[dict[str, float]]:
    """For each video label -> score, the best first; a label is the mean vector of its prompts."""
    for label, sentences in prompts.items():
        if isinstance(sentences, str) or not sentences:
            raise ValueError(f"label '{label}' needs a list of one or more sentences, got {sentences!r}")
    if not prompts:
        raise ValueError("no labels to choose from")
    vectors = embed_text(model, [sentence for sentences in prompts.values() for sentence in sentences])
    labels = torch.stack([part.mean(dim=0) for part in torch.split(vectors, [len(part) for part in prompts.values()])])
    scores = videos.float().cpu() @ labels.T  # (V, labels)
    order = scores.argsort(dim=1, descending=True, stable=True)
    names = list(prompts)
    return [{names[i]: float(row[i]) for i in best.tolist()} for row, best in zip(scores, order, strict=True)]
