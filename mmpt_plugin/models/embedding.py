"""Inference with a trained model: video files and sentences -> vectors, and zero-shot classification.

V videos, Q sentences, T seconds, F feature width, D hidden width.
"""

import sys
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from inspect import signature
from itertools import islice
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int, UInt8
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from mmpt_plugin import registry
from mmpt_plugin.batch import Batch, pad_video
from mmpt_plugin.models.padding import chunked, full_mask
from mmpt_plugin.protocols import Encoder, EncoderSettings
from mmpt_plugin.tokenizer import cut_text, token_ids
from mmpt_plugin.video.ahead import in_order

S = TypeVar("S")
T = TypeVar("T")


@dataclass(kw_only=True)
class EmbedderConfig:
    """Settings that training, evaluation and search read of a model: a base class for the configs of new models."""

    feature_dim: int = 512
    """Width of the video features: one row per second."""
    vocab_size: int = 30522
    """Number of token ids that the model knows; 30522 is bert-base-uncased."""
    hidden_size: int = 256
    """Width of the vectors of videos and texts."""
    max_video_len: int = 32
    """Longest clip, in seconds."""
    max_text_len: int = 61
    """Maximum word pieces per text, not counting the first and the last special token. A longer text is cut."""
    normalize: bool = False
    """Scale all vectors to unit length, which makes dot products cosines."""


class Embedder(nn.Module):
    """Base class of models that embed videos and texts; takes tensors, or video files and sentences.

    A subclass calls `super().__init__(config)` and defines `video_vectors` and `text_vectors`.
    """

    config: Any
    config_fields: tuple[str, ...] = ("feature_dim", "hidden_size", "max_video_len", "max_text_len")
    """What the config must have; `EmbedderConfig` has it. Optional: vocab_size and max_position_embeddings, which limit
    texts, normalize, and chunk_size, the clips and texts encoded at a time."""
    alternatives: ClassVar[dict[str, str]] = {
        "video_vectors": "encode_video", "text_vectors": "encode_text", "max_text_len": "max_position_embeddings"
    }  # fmt: skip
    """What a subclass, or its config, may have instead, as those of version 0.1."""
    takes_frames: bool = False
    """Whether clips may be uint8 frames instead of feature rows of width feature_dim."""
    unit_vectors: bool | None = None
    """Whether all vectors have unit length, so that dot products are cosines; None if unknown."""
    encoder: dict[str, Any] | None = None
    """Settings of the feature encoder that the model was trained with, such as
    `{"_name": "s3d", "weights": "s3d_howto100m.pth"}`."""
    tokenizer: PreTrainedTokenizerBase | None = None
    """The tokenizer saved with the model, or None."""

    def __init__(self, config: Any = None) -> None:
        super().__init__()
        if config is not None:
            self.config = config
        if (normalize := getattr(config, "normalize", None)) is not None:
            self.unit_vectors = normalize

    @abstractmethod
    def video_vectors(self, video: Tensor, mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """One vector per clip: rows (B, T, F) in the model's precision, or uint8 frames (B, T, H, W, 3) if it takes
        them; `mask` is False for padding. A model that computes no padding may also take `places`, the positions of the
        True values in the flattened mask, or None."""

    @abstractmethod
    def text_vectors(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """One vector per text: ids `[CLS] w1..wn [SEP] [PAD]..`, at most max_text_tokens; `mask` is False for
        padding."""

    def forward(self, batch: Batch) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """The video and text embeddings of every pair."""
        video = places_for(self.video_vectors, batch.video_places)
        text = places_for(self.text_vectors, batch.text_places)
        return (
            self.encode_video(batch.video, batch.video_mask, **video),
            self.encode_text(batch.text, batch.text_mask, **text),
        )

    def encode_video(
        self,
        features: Float[Tensor, "B T F"] | UInt8[Tensor, "B T H W 3"],
        mask: Bool[Tensor, "B T"] | None = None,
        **places: Int[Tensor, " N"],
    ) -> Float[Tensor, "B D"]:
        """One vector per clip of at most max_video_len seconds, or frames; `mask` is False where a row is padding.

        `places` are those of `Batch.packed`, for a model whose `video_vectors` takes them.
        """
        if features.is_floating_point():  # shards and feature files are in half precision
            features = features.to(next((p.dtype for p in self.parameters() if p.is_floating_point()), torch.float32))
        mask = full_mask(features, mask)
        return self.scaled(chunked(self.video_vectors, features, mask, size=self.chunk_size, **places))

    def encode_text(
        self,
        text: Int[Tensor, "B L"] | str | Sequence[str],
        mask: Bool[Tensor, "B L"] | None = None,
        **places: Int[Tensor, " N"],
    ) -> Float[Tensor, "B D"]:
        """One vector per text: token ids `[CLS] w1..wn [SEP] [PAD]..` with their mask, or strings.

        Strings need a tokenizer: load the model from a folder that has one, or set `model.tokenizer`. A text is cut to
        max_text_tokens, and keeps its last token. `places` are as in `encode_video`.
        """
        if not isinstance(text, Tensor):
            text, mask = self.tokenize(text)
        ids, mask = cut_text(text, full_mask(text, mask), length=self.max_text_tokens)
        kept = places if ids is text else {}
        return self.scaled(chunked(self.text_vectors, ids, mask, size=self.chunk_size, **kept))

    def scaled(self, vectors: Float[Tensor, "*B D"]) -> Float[Tensor, "*B D"]:
        """The vectors, scaled to unit length if `model.normalize` is set."""
        return F.normalize(vectors, dim=-1) if getattr(self.config, "normalize", False) else vectors

    @property
    def chunk_size(self) -> int:
        """Clips, and texts, encoded at a time; 0 is all."""
        return int(getattr(self.config, "chunk_size", 0))

    @property
    def max_text_tokens(self) -> int:
        """Maximum number of token ids per text, including special tokens."""
        positions: int = getattr(self.config, "max_position_embeddings", sys.maxsize)
        return min(getattr(self.config, "max_text_len", positions) + 2, positions)

    def tokenize(
        self, texts: str | Sequence[str], tokenizer: PreTrainedTokenizerBase | None = None
    ) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        """Token ids and their mask, at most max_text_tokens per text, on the model's device.

        The model's own tokenizer is the one its weights were trained with; `tokenizer` is used if there is none.
        ValueError if there is neither.
        """
        tokenizer = self.tokenizer or tokenizer
        if tokenizer is None:
            raise ValueError("this model has no tokenizer: pass token ids, or set model.tokenizer")
        texts = [texts] if isinstance(texts, str) else list(texts)
        ids, mask = token_ids(texts, tokenizer, max_length=self.max_text_tokens)
        device = next(self.parameters()).device
        return ids.to(device), mask.to(device)

    def check_clips(self, feature_dim: int | None, *, where: str) -> None:
        """ValueError for features of a different width, or for frames (feature_dim None) if the model takes none."""
        takes = f"features of width {self.config.feature_dim}{', or frames' if self.takes_frames else ''}"
        if not (self.takes_frames if feature_dim is None else feature_dim == self.config.feature_dim):
            holds = "frames" if feature_dim is None else f"features of width {feature_dim}"
            raise ValueError(f"{where} has {holds}, but the model expects {takes}")

    def check_vocabulary(self, vocab_size: int, *, where: str) -> None:
        """ValueError for a tokenizer that has ids without an embedding in the model."""
        known = getattr(self.config, "vocab_size", None)
        if known is not None and vocab_size > known:
            raise ValueError(
                f"{where} has {vocab_size} word pieces, but model.vocab_size is {known}: "
                "the model was trained with another tokenizer"
            )

    def check_dataset(self, dataset: Any, *, where: str) -> None:
        """ValueError for a training dataset that does not fit the model.

        Compares the width of the features and, if the dataset has them, vocab_size, max_text_len and num_labels.
        """
        self.check_clips(dataset.feature_dim, where=where)
        if (vocab_size := getattr(dataset, "vocab_size", None)) is not None:
            self.check_vocabulary(vocab_size, where=where)
        for key, remedy in (
            ("max_text_len", "lower task.dataset.max_text_len or raise the model's"),
            ("num_labels", "raise the model's"),
        ):
            given, own = getattr(dataset, key, None), getattr(self.config, key, None)
            if given is not None and own is not None and given > own:
                raise ValueError(f"{where} has {key} {given}, but model.{key} is {own}: {remedy}")

    def check_encoder(self, encoder: Encoder) -> None:
        """ValueError for an encoder whose features do not fit the model."""
        self.check_clips(encoder.feature_dim, where=f"encoder {encoder.fingerprint}")

    def embed_videos(
        self,
        paths: str | Path | Iterable[str | Path],
        encoder: EncoderSettings | None = None,
        *,
        truncate: bool = False,
        batch_size: int = 64,
    ) -> Float[Tensor, "V D"]:
        """One vector per video file, float32 on the CPU; dot products with `embed_text`'s vectors are similarities.

        `encoder` computes the features: a registered name, settings such as
        `{"_name": "s3d", "weights": "s3d_howto100m.pth"}`, or an encoder object. By default it is the one saved with
        the model. A video longer than max_video_len is cut into equal windows whose vectors are averaged; `truncate`
        reads only its first max_video_len seconds, as the original's benchmarks do. A file that cannot be read is a
        ValueError that names it.
        """
        encoder = self.encoder if encoder is None else encoder
        if encoder is None:
            raise ValueError(
                "this model was saved without an encoder: pass the one that it was trained with, such as "
                'encoder={"_name": "s3d", "weights": "s3d_howto100m.pth"}'
            )
        built = build_encoder(encoder)
        self.check_encoder(built)
        max_seconds = self.config.max_video_len if truncate else None
        features = read_videos(path_list(paths), built, max_seconds=max_seconds)
        return self.embed_features(features, truncate=truncate, batch_size=batch_size)

    @torch.inference_mode()
    def embed_features(
        self, features: Iterable[Float[np.ndarray, "_ F"]], *, truncate: bool = False, batch_size: int = 64
    ) -> Float[Tensor, "V D"]:
        """`embed_videos` for extracted features: one array (T, F) per video, one row per second."""
        longest = self.config.max_video_len

        def equal_parts(rows: Tensor) -> Sequence[Tensor]:
            rows = rows[:longest] if truncate else rows
            return rows.tensor_split(-(-len(rows) // longest))

        means = [windows.mean(dim=0) for windows in self._embed_parts(features, equal_parts, batch_size)]
        return torch.stack(means) if means else torch.zeros(0, self.config.hidden_size)

    @torch.inference_mode()
    def embed_candidates(
        self, features: Iterable[Float[np.ndarray, "_ F"]], *, hop: int, window: int | None = None, batch_size: int = 64
    ) -> list[Float[Tensor, "_ D"]]:
        """For each video, the vectors of all windows of `window` rows, `hop` rows apart; see `best_candidates`.

        A window has max_video_len rows by default. You can also average the vectors into one per video, which is
        smoother than `embed_features` with its windows that do not overlap.
        """
        length = window or self.config.max_video_len

        def overlapping(rows: Tensor) -> Sequence[Tensor]:
            return [rows[start:end] for start, end in sliding_windows(len(rows), window=length, hop=hop)]

        return self._embed_parts(features, overlapping, batch_size)

    def _embed_parts(
        self,
        features: Iterable[Float[np.ndarray, "_ F"]],
        divide: Callable[[Tensor], Sequence[Tensor]],
        batch_size: int,
    ) -> list[Float[Tensor, "_ D"]]:
        """For each video, the vectors of its parts; a batch may hold parts of several videos."""
        width = self.config.feature_dim
        counts: list[int] = []

        def parts() -> Iterator[Tensor]:
            for number, video in enumerate(features):
                if video.ndim != 2 or video.shape[1] != width or len(video) == 0:
                    shape = f"features of video {number} have shape {video.shape}"
                    raise ValueError(f"{shape}, the model expects (T, {width})")
                divided = divide(torch.from_numpy(np.array(video)))
                counts.append(len(divided))
                yield from divided

        waiting = parts()
        vectors: list[Tensor] = []
        while batch := list(islice(waiting, batch_size)):
            vectors.append(self._encode_windows(batch))
        return list(torch.split(torch.cat(vectors), counts)) if vectors else []

    def _encode_windows(
        self, windows: Sequence[Float[Tensor, "_ F"]] | Sequence[UInt8[Tensor, "_ H W 3"]]
    ) -> Float[Tensor, "B D"]:
        device = next(self.parameters()).device
        return self.encode_video(*(tensor.to(device) for tensor in pad_video(windows))).float().cpu()

    @torch.inference_mode()
    def embed_text(self, sentences: str | Sequence[str], *, batch_size: int = 256) -> Float[Tensor, "Q D"]:
        """One vector per sentence, float32 on the CPU; a single string is one sentence. The model needs a tokenizer."""
        sentences = [sentences] if isinstance(sentences, str) else sentences
        vectors = [
            self.encode_text(sentences[begin : begin + batch_size]).float().cpu()
            for begin in range(0, len(sentences), batch_size)
        ]
        return torch.cat(vectors) if vectors else torch.zeros(0, self.config.hidden_size)

    def classify(
        self, videos: Float[Tensor, "V D"], prompts: Sequence[str] | Mapping[str, str | Sequence[str]]
    ) -> list[dict[str, float]]:
        """Zero-shot classification: for each vector of `embed_videos`, a dict label -> score, highest score first.

        `prompts` are labels, or a mapping from each label to one or more sentences, whose vectors are averaged:
        `{"slicing": ["slice the onion", "cut it into thin slices"], ...}`.
        """
        if not prompts or isinstance(prompts, str):
            raise ValueError(f"prompts must be a list of labels, or a mapping label -> sentences, got {prompts!r}")
        pairs = prompts.items() if isinstance(prompts, Mapping) else ((label, label) for label in prompts)
        sentences = {label: [own] if isinstance(own, str) else list(own) for label, own in pairs}
        for label, own in sentences.items():
            if not own:
                raise ValueError(f"label '{label}' needs one or more sentences, got {own!r}")
        vectors = self.embed_text([sentence for own in sentences.values() for sentence in own])
        parts = torch.split(vectors, [len(own) for own in sentences.values()])
        scores = videos.float().cpu() @ torch.stack([part.mean(dim=0) for part in parts]).T  # (V, labels)
        order = scores.argsort(dim=1, descending=True, stable=True)
        names = list(sentences)
        return [{names[i]: float(row[i]) for i in best.tolist()} for row, best in zip(scores, order, strict=True)]


def places_for(vectors: Callable[..., Tensor], places: Int[Tensor, " N"] | None) -> dict[str, Int[Tensor, " N"]]:
    """The argument `places` of `video_vectors` or `text_vectors`; {} if it takes none, or there are none."""
    return {} if places is None or "places" not in signature(vectors).parameters else {"places": places}


def sliding_windows(length: int, *, window: int, hop: int) -> list[tuple[int, int]]:
    """Begin and end of windows that cover `length` rows, `hop` rows apart; the last window ends at the last row.

    A video that is not longer than a window is one window.
    """
    if not 0 < hop <= window:
        raise ValueError(f"hop must be 1 to {window}, the number of rows in a window, got {hop}")
    last = max(length - window, 0)
    starts = [*range(0, last, hop), last]
    return [(start, min(start + window, length)) for start in starts]


def best_candidates(
    text: Float[Tensor, "Q D"], candidates: Sequence[Float[Tensor, "_ D"]]
) -> tuple[Float[Tensor, "Q V"], Int[Tensor, "Q V"]]:
    """For each sentence and video, the highest dot product with one of the video's candidates, and its index."""
    best = [(text @ windows.T).max(dim=1) for windows in candidates]
    return torch.stack([one.values for one in best], dim=1), torch.stack([one.indices for one in best], dim=1)


def path_list(paths: str | Path | Iterable[str | Path]) -> list[Path]:
    """One path, or several, as a list."""
    return [Path(path) for path in ([paths] if isinstance(paths, str | Path) else paths)]


def build_encoder(encoder: EncoderSettings) -> Encoder:
    """An encoder from its registered name or its settings; an encoder object is returned as it is."""
    named = {"_name": encoder} if isinstance(encoder, str) else encoder
    built: Encoder = registry.encoders.build(named) if isinstance(named, Mapping) else named
    return built


def read_videos(
    paths: Iterable[Path], encoder: Encoder, *, max_seconds: int | None = None
) -> Iterator[Float[np.ndarray, "T F"]]:
    """The features of each video file, one row per second, the same as in training."""
    from mmpt_plugin.features.extract import encode  # PyAV is an extra

    for path in paths:
        yield encode(path, encoder, max_seconds=max_seconds)


def read_ahead(read: Callable[[S], T], items: Iterable[S], *, num_threads: int = 8) -> Iterator[T]:
    """`read(item)` for every item, in order; reads 2 * num_threads items ahead, because decoding is slow."""
    with ThreadPoolExecutor(num_threads) as pool:
        yield from in_order((pool.submit(read, item) for item in items), ahead=2 * num_threads)
