"""Raw videos and sentences -> vectors, and the labels nearest to them: what a trained model is used for.

V videos, Q sentences, T seconds, F feature width, D hidden width.
"""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from mmpt_plugin import registry
from mmpt_plugin.clips.batch import pad_video
from mmpt_plugin.features.encoder import Encoder


class Embedder(nn.Module):
    """A model of features and token ids, used on video files and sentences."""

    config: Any
    """Has feature_dim, hidden_size and max_video_len."""
    takes_frames: bool = False
    """Whether clips may be frames, uint8, in place of rows of feature_dim."""
    encoder: dict[str, Any] | None = None
    """What makes the features that the model was trained on, `{"_name": "s3d", "weights": "s3d_howto100m.pth"}`."""

    @abstractmethod
    def encode_video(
        self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"] | None = None
    ) -> Float[Tensor, "B D"]:
        """One vector a clip of at most max_video_len seconds; `mask` is False where a row is padding."""

    @abstractmethod
    def encode_text(
        self, text: Int[Tensor, "B L"] | Sequence[str], mask: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B D"]:
        """One vector a text."""

    def check_clips(self, feature_dim: int | None, *, where: str) -> None:
        """ValueError where clips have features of another width, or frames (feature_dim None) that it does not take."""
        takes = f"features of width {self.config.feature_dim}{', or frames' if self.takes_frames else ''}"
        if not (self.takes_frames if feature_dim is None else feature_dim == self.config.feature_dim):
            holds = "frames" if feature_dim is None else f"features of width {feature_dim}"
            raise ValueError(f"{where} holds {holds}, the model takes {takes}")

    def embed_videos(
        self,
        paths: Iterable[str | Path],
        encoder: str | Mapping[str, Any] | Encoder | None = None,
        *,
        truncate: bool = False,
        batch_size: int = 64,
    ) -> Float[Tensor, "V D"]:
        """One vector a video file, float32 on the CPU; their products with `embed_text`'s are the similarities.

        `encoder` makes the features, where not the one that the model came with does: a name, settings such as
        `{"_name": "s3d", "weights": "s3d_howto100m.pth"}`, or one that is built. A video longer than max_video_len
        is cut into equal windows, whose vectors are averaged; truncate reads its first max_video_len seconds only,
        as the original's benchmarks do. A file that can't be used raises ValueError, naming it.
        """
        encoder = self.encoder if encoder is None else encoder
        if encoder is None:
            raise ValueError(
                "this model came without an encoder: name what made the features it was trained on, such as "
                'encoder={"_name": "s3d", "weights": "s3d_howto100m.pth"}'
            )
        return self.embed_features(read_videos(paths, encoder), truncate=truncate, batch_size=batch_size)

    @torch.inference_mode()
    def embed_features(
        self, features: Iterable[Float[np.ndarray, "_ F"]], *, truncate: bool = False, batch_size: int = 64
    ) -> Float[Tensor, "V D"]:
        """`embed_videos` of features that were extracted before."""
        longest = self.config.max_video_len

        def equal_parts(rows: Tensor) -> Sequence[Tensor]:
            rows = rows[:longest] if truncate else rows
            return rows.tensor_split(-(-len(rows) // longest))

        means = [windows.mean(dim=0) for windows in self._embed_parts(features, equal_parts, batch_size)]
        return torch.stack(means) if means else torch.zeros(0, self.config.hidden_size)

    @torch.inference_mode()
    def embed_candidates(
        self, features: Iterable[Float[np.ndarray, "_ F"]], *, hop: int, batch_size: int = 64
    ) -> list[Float[Tensor, "_ D"]]:
        """For each video the vectors of all its windows of max_video_len rows, `hop` rows apart, see `best_candidates`.

        Their mean is a video's vector too, smoother than that of windows that do not overlap.
        """
        window = self.config.max_video_len

        def overlapping(rows: Tensor) -> Sequence[Tensor]:
            return [rows[start:end] for start, end in sliding_windows(len(rows), window=window, hop=hop)]

        return self._embed_parts(features, overlapping, batch_size)

    def _embed_parts(
        self,
        features: Iterable[Float[np.ndarray, "_ F"]],
        divide: Callable[[Tensor], Sequence[Tensor]],
        batch_size: int,
    ) -> list[Float[Tensor, "_ D"]]:
        """For each video the vectors of the parts that it is divided into; a batch may hold parts of several."""
        width = self.config.feature_dim
        counts: list[int] = []

        def parts() -> Iterator[Tensor]:
            for number, video in enumerate(features):
                if video.ndim != 2 or video.shape[1] != width or len(video) == 0:
                    shape = f"features of video {number} have shape {video.shape}"
                    raise ValueError(f"{shape}, the model takes (T, {width})")
                divided = divide(torch.from_numpy(np.array(video)))
                counts.append(len(divided))
                yield from divided

        waiting = parts()
        vectors: list[Tensor] = []
        while batch := list(islice(waiting, batch_size)):
            vectors.append(self._encode_windows(batch))
        return list(torch.split(torch.cat(vectors), counts)) if vectors else []

    def _encode_windows(self, windows: Sequence[Float[Tensor, "_ F"]]) -> Float[Tensor, "B D"]:
        device = next(self.parameters()).device
        return self.encode_video(*(tensor.to(device) for tensor in pad_video(windows))).float().cpu()

    @torch.inference_mode()
    def embed_text(self, sentences: Sequence[str], *, batch_size: int = 256) -> Float[Tensor, "Q D"]:
        """One vector a sentence, float32 on the CPU. Wants a tokenizer, see `encode_text`."""
        vectors = [
            self.encode_text(sentences[begin : begin + batch_size]).float().cpu()
            for begin in range(0, len(sentences), batch_size)
        ]
        return torch.cat(vectors) if vectors else torch.zeros(0, self.config.hidden_size)

    def classify(self, videos: Float[Tensor, "V D"], prompts: Mapping[str, Sequence[str]]) -> list[dict[str, float]]:
        """Zero-shot: for each of `embed_videos`'s vectors label -> score, the best first.

        `prompts` has one or more sentences a label, whose vectors are averaged:
        `{"slicing": ["slice the onion", "cut it into thin slices"], ...}`.
        """
        for label, sentences in prompts.items():
            if isinstance(sentences, str) or not sentences:
                raise ValueError(f"label '{label}' needs a list of one or more sentences, got {sentences!r}")
        if not prompts:
            raise ValueError("no labels to choose from")
        vectors = self.embed_text([sentence for sentences in prompts.values() for sentence in sentences])
        parts = torch.split(vectors, [len(sentences) for sentences in prompts.values()])
        scores = videos.float().cpu() @ torch.stack([part.mean(dim=0) for part in parts]).T  # (V, labels)
        order = scores.argsort(dim=1, descending=True, stable=True)
        names = list(prompts)
        return [{names[i]: float(row[i]) for i in best.tolist()} for row, best in zip(scores, order, strict=True)]


def sliding_windows(length: int, *, window: int, hop: int) -> list[tuple[int, int]]:
    """Where windows begin and end that cover `length` rows, `hop` apart; the last one ends with the rows.

    A video no longer than a window is one window.
    """
    if not 0 < hop <= window:
        raise ValueError(f"windows of {window} rows cover a video if hop is 1 to {window}, got {hop}")
    last = max(length - window, 0)
    starts = [*range(0, last, hop), last]
    return [(start, min(start + window, length)) for start in starts]


def best_candidates(
    text: Float[Tensor, "Q D"], candidates: Sequence[Float[Tensor, "_ D"]]
) -> tuple[Float[Tensor, "Q V"], Int[Tensor, "Q V"]]:
    """Each sentence's highest product with a candidate of each video, and which of its candidates that is."""
    best = [(text @ windows.T).max(dim=1) for windows in candidates]
    return torch.stack([one.values for one in best], dim=1), torch.stack([one.indices for one in best], dim=1)


def read_videos(
    paths: Iterable[str | Path], encoder: str | Mapping[str, Any] | Encoder
) -> Iterator[Float[np.ndarray, "T F"]]:
    """The features of each video file, one row a second, as training reads them."""
    from mmpt_plugin.features.extract import encode  # PyAV is an extra

    named = {"_name": encoder} if isinstance(encoder, str) else encoder
    built: Encoder = registry.encoders.build(named) if isinstance(named, Mapping) else named
    for path in paths:
        yield encode(Path(path), built)
