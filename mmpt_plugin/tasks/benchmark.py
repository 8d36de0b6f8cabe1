"""The base class of all benchmarks: a corpus, its tokenizer, and encoding in batches.

N texts or clips, D embedding width, B clips in a batch, T seconds or frames, F feature width.
"""

import copy
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from itertools import islice
from typing import Any, ClassVar, Generic, TypeVar, cast

import numpy as np
import torch
from jaxtyping import Bool, Float, UInt8
from torch import Tensor

from mmpt_plugin.batch import pad_video
from mmpt_plugin.corpora.corpus import AnyCorpus, Corpus, build_corpus
from mmpt_plugin.distributed import world_size
from mmpt_plugin.models.embedding import Embedder, read_ahead
from mmpt_plugin.tokenizer import load_tokenizer, num_ids

T = TypeVar("T")
Model = TypeVar("Model", bound=Embedder)
Clip = Float[Tensor, "_ F"] | UInt8[Tensor, "_ H W 3"]

SKIPPED = ("missing_clips", "missing_segments")  # counts that the result lists if they are not 0


@dataclass(kw_only=True)
class BenchmarkConfig:
    """Options of all benchmarks: the corpus, the batch size of encoding, and published numbers."""

    dataset: dict[str, Any] = field(default_factory=dict)
    """Corpus to evaluate on, such as `{_name: jsonl, annotations: ..., features: ..., tokenizer: ...}`."""
    eval_chunk_size: int = 64
    """Number of clips, texts or windows encoded at a time. Changes memory and speed, not the result."""
    published: dict[str, Any] = field(default_factory=dict)
    """Published numbers, shown next to the measured ones: `{zero_shot: {metric: value}, clip2video: {...}}`. The
    project's `protocol` selects one of the keys."""
    test_set: str = ""
    """Name of the test set in papers, such as `MSR-VTT 1k-A`. The result and the printed table show it. Change it if
    you change the data."""
    source: str = ""
    """Where to get the data; shown if its files are missing."""
    finetune: dict[str, Any] = field(default_factory=dict)
    """Training data, validation benchmark and metric for fine-tuning on this task."""

    RENAMED: ClassVar[dict[str, str]] = {"clips_at_once": "eval_chunk_size", "paper": "published"}

    def __post_init__(self) -> None:
        if self.eval_chunk_size < 1:
            raise ValueError(f"task.eval_chunk_size must be at least 1, got {self.eval_chunk_size}")


class Benchmark(Generic[AnyCorpus]):
    """The base class of tasks that evaluate a model; a subclass implements `evaluate(model)`."""

    needs: ClassVar[str] = "video_ids"
    """The attribute that the corpus must have, as those of type AnyCorpus do."""

    def __init__(self, config: BenchmarkConfig) -> None:
        self.config = config
        self.dataset: AnyCorpus = cast(AnyCorpus, build_corpus(config.dataset, Corpus, needs=self.needs))

    def check(self, model: Embedder) -> None:
        """ValueError if the model does not fit the data; called before anything is encoded."""
        model.check_clips(self.dataset.feature_dim, where="the data set")
        if model.tokenizer is None:
            name = self.dataset.config.tokenizer
            model.check_vocabulary(num_ids(self.tokenizer), where=f"tokenizer {name} (task.dataset.tokenizer)")

    @cached_property
    def tokenizer(self) -> Any:
        """The tokenizer of the corpus, for models saved without one."""
        return load_tokenizer(self.dataset.config.tokenizer)

    def result(self, counts: dict[str, int], metrics: dict[str, float], chance: dict[str, float]) -> dict[str, Any]:
        """The dict that every `evaluate` returns: counts, checksums of the data, metrics and their chance values."""
        return {
            **counts,
            "missing_videos": len(self.dataset.missing_videos),
            **{key: getattr(self.dataset, key) for key in SKIPPED if getattr(self.dataset, key, 0)},
            "data": self.dataset.fingerprints,
            "metrics": metrics,
            "chance": chance,
        }

    def encode_texts(self, model: Embedder, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """One vector per text; repeated texts are encoded once.

        Uses the model's own tokenizer, or that of the corpus if the model was saved without one.
        """
        different = list(dict.fromkeys(texts))
        tokenizer = None if model.tokenizer is not None else self.tokenizer

        def encode(model: Embedder, some: list[str]) -> Tensor:
            return model.encode_text(*model.tokenize(some, tokenizer))

        vectors = list(on_all_gpus(model, encode, batches(different, self.config.eval_chunk_size)))
        position = {text: number for number, text in enumerate(different)}
        return np.asarray(torch.cat(vectors).numpy()[[position[text] for text in texts]])

    def encode_videos(self, model: Embedder, clips: Iterable[Clip]) -> Float[np.ndarray, "N D"]:
        """One vector per clip; clips are read lazily."""

        def encode(model: Embedder, rows: list[Clip]) -> Tensor:
            return model.encode_video(*pad(rows, model))

        vectors = list(on_all_gpus(model, encode, batches(clips, self.config.eval_chunk_size)))
        return np.asarray(torch.cat(vectors).numpy())

    def encode_whole_videos(self, model: Embedder, video_ids: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """One vector per video, of its first max_video_len seconds or of its frames; repeated ids are encoded once."""
        different = list(dict.fromkeys(video_ids))
        length = model.config.max_video_len
        vectors = self.encode_videos(model, read_ahead(partial(self.dataset.clip, max_video_len=length), different))
        position = {video_id: number for number, video_id in enumerate(different)}
        return vectors[[position[video_id] for video_id in video_ids]]


def on_all_gpus(
    model: Model,
    encode: Callable[[Model, T], Tensor],
    groups: Iterable[T],
    *,
    devices: Sequence[torch.device] | None = None,
) -> Iterator[Tensor]:
    """Yield `encode(model, group)` of every group, in order, as float32 on the CPU.

    If the model is on a GPU, all GPUs of the machine are used, each with a copy of the model. Under torch.distributed,
    where each GPU has its own process, only the model's device is used. `groups` is read lazily, one group per device
    at a time, so it may exceed the memory. `devices` overrides this choice.
    """
    if devices is None:
        count = torch.cuda.device_count() if device_of(model).type == "cuda" and world_size() == 1 else 0
        devices = [torch.device("cuda", number) for number in range(count)] or [device_of(model)]
    copies = [model if device == device_of(model) else copy.deepcopy(model).to(device) for device in devices]

    def one(model: Model, group: T) -> Tensor:
        with torch.inference_mode():
            return encode(model, group).float().cpu()

    with ThreadPoolExecutor(len(copies)) as pool:
        for some in batches(groups, len(copies)):
            yield from pool.map(one, copies, some)


def evenly_spaced(size: int, number: int) -> list[int]:
    """At most `number` evenly spaced integers from 0 to `size` - 1."""
    chosen: list[int] = np.linspace(0, size - 1, min(number, size)).astype(int).tolist()
    return chosen


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Yield the items in lists of `size`; the last list may be shorter. Items are read lazily."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def pad(
    rows: Sequence[Clip], model: Embedder, *, length: int = 0
) -> tuple[Float[Tensor, "B T F"] | UInt8[Tensor, "B T H W 3"], Bool[Tensor, "B T"]]:
    """Clips padded to the longest, or to `length` if that is more, and their mask, on the model's device."""
    model.check_clips(rows[0].shape[1] if rows[0].ndim == 2 else None, where="the data set")
    video, mask = pad_video(rows, length=length)
    return video.to(device_of(model)), mask.to(device_of(model))


def device_of(model: Embedder) -> torch.device:
    """The device of the model's first parameter."""
    return next(model.parameters()).device
