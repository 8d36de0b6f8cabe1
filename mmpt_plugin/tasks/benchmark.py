"""What all benchmarks share: a data set, its tokenizer, and what a model makes of both, in batches."""

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
from mmpt_plugin.tokenizer import load_tokenizer

T = TypeVar("T")
Model = TypeVar("Model", bound=Embedder)
Clip = Float[Tensor, "_ F"] | UInt8[Tensor, "_ H W 3"]

LEFT_OUT = ("missing_clips", "missing_segments")  # what a corpus counts of it, where there is some


@dataclass(kw_only=True)
class BenchmarkConfig:
    """What every benchmark has: its data, how much is encoded at a time, and published numbers."""

    dataset: dict[str, Any] = field(default_factory=dict)
    """Corpus to measure on, such as `{_name: jsonl, annotations: ..., features: ..., tokenizer: ...}`."""
    eval_chunk_size: int = 64
    """Clips, texts or windows encoded at a time. It changes memory and speed, never the result."""
    published: dict[str, Any] = field(default_factory=dict)
    """Published numbers, shown next to the measured ones: `{zero_shot: {metric: value}, finetuned: {...}}`."""
    source: str = ""
    """Where to get the data; shown when its files are missing."""
    finetune: dict[str, Any] = field(default_factory=dict)
    """Training data and settings that a fine-tuning project takes from this task."""

    RENAMED: ClassVar[dict[str, str]] = {"clips_at_once": "eval_chunk_size", "paper": "published"}

    def __post_init__(self) -> None:
        if self.eval_chunk_size < 1:
            raise ValueError(f"task.eval_chunk_size must be at least 1, got {self.eval_chunk_size}")


class Benchmark(Generic[AnyCorpus]):
    """A kind of task that measures; a subclass says how in `evaluate(model)`."""

    needs: ClassVar[str] = "video_ids"
    """The attribute that the corpus must have, as those of type AnyCorpus do."""

    def __init__(self, config: BenchmarkConfig) -> None:
        self.config = config
        self.dataset: AnyCorpus = cast(AnyCorpus, build_corpus(config.dataset, Corpus, needs=self.needs))

    def check(self, model: Embedder) -> None:
        """ValueError where the model can't be measured on this data, before anything is encoded."""
        model.check_clips(self.dataset.feature_dim, where="the data set")
        if model.tokenizer is None:
            name = self.dataset.config.tokenizer
            model.check_vocabulary(len(self.tokenizer), where=f"tokenizer {name} (task.dataset.tokenizer)")

    @cached_property
    def tokenizer(self) -> Any:
        """For models that came without one."""
        return load_tokenizer(self.dataset.config.tokenizer)

    def result(self, counts: dict[str, int], metrics: dict[str, float], chance: dict[str, float]) -> dict[str, Any]:
        """What every `evaluate` returns: how much was measured and of which files, and the metrics beside chance."""
        return {
            **counts,
            "missing_videos": len(self.dataset.missing_videos),
            **{key: getattr(self.dataset, key) for key in LEFT_OUT if getattr(self.dataset, key, 0)},
            "data": self.dataset.fingerprints,
            "metrics": metrics,
            "chance": chance,
        }

    def encode_texts(self, model: Embedder, texts: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """One vector a text; each different text is encoded once, by the model's own tokenizer if it came with one."""
        different = list(dict.fromkeys(texts))
        tokenizer = None if model.tokenizer is not None else self.tokenizer

        def encode(model: Embedder, some: list[str]) -> Tensor:
            return model.encode_text(*model.tokenize(some, tokenizer))

        vectors = list(on_all_gpus(model, encode, batches(different, self.config.eval_chunk_size)))
        position = {text: number for number, text in enumerate(different)}
        return np.asarray(torch.cat(vectors).numpy()[[position[text] for text in texts]])

    def encode_videos(self, model: Embedder, clips: Iterable[Clip]) -> Float[np.ndarray, "N D"]:
        """One vector a clip."""

        def encode(model: Embedder, rows: list[Clip]) -> Tensor:
            return model.encode_video(*pad(rows, model))

        vectors = list(on_all_gpus(model, encode, batches(clips, self.config.eval_chunk_size)))
        return np.asarray(torch.cat(vectors).numpy())

    def encode_whole_videos(self, model: Embedder, video_ids: Sequence[str]) -> Float[np.ndarray, "N D"]:
        """One vector a video, of its first max_video_len seconds or of its frames; each is encoded once."""
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
    """`encode(model, group)` of every group, in order, float32 on the CPU.

    Where there are several GPUs, and the model is on one, each has a copy of it and takes the next group; but under
    torch.distributed, where each GPU has a process, the model's alone is used. `groups` may be larger than memory: as
    many as there are GPUs are read at a time.
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


def spread(size: int, number: int) -> list[int]:
    """At most `number` of the first `size` integers, evenly spread."""
    chosen: list[int] = np.linspace(0, size - 1, min(number, size)).astype(int).tolist()
    return chosen


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """The items in lists of `size`; the last one may be shorter. Items are read as lists are asked for."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch


def pad(
    rows: Sequence[Clip], model: Embedder, *, length: int = 0
) -> tuple[Float[Tensor, "B T F"] | UInt8[Tensor, "B T H W 3"], Bool[Tensor, "B T"]]:
    """Clips as one batch on the model's device, as long as the longest or as `length`, and its mask."""
    model.check_clips(rows[0].shape[1] if rows[0].ndim == 2 else None, where="the data set")
    video, mask = pad_video(rows, length=length)
    return video.to(device_of(model)), mask.to(device_of(model))


def device_of(model: Embedder) -> torch.device:
    """The device of the model's first parameter."""
    return next(model.parameters()).device
