"""Zero-shot text-to-video retrieval: nearest by dot product."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from mmpt_plugin import registry
from mmpt_plugin.clips.captions import load_tokenizer
from mmpt_plugin.metrics.retrieval import chance, ranks, summary
from mmpt_plugin.models import VideoCLIP
from mmpt_plugin.registry import register_task


@dataclass(kw_only=True)
class TextVideoRetrievalConfig:
    dataset: dict[str, Any] = field(default_factory=dict)
    """Which annotated clips, {_name: jsonl, annotations: ..., features: ..., tokenizer: ...}."""
    clips_at_once: int = 64
    """How many are encoded together."""
    examples: int = 10
    """How many queries the result shows in full, spread evenly over the data."""


@dataclass(frozen=True)
class Embeddings:
    """Row i of both is clip i: its video and its caption."""

    video: Float[np.ndarray, "N D"]
    text: Float[np.ndarray, "N D"]


@register_task("text_video_retrieval", dataclass=TextVideoRetrievalConfig)
class TextVideoRetrieval:
    """Each caption must find its clip among all clips, and each clip its caption."""

    def __init__(self, config: TextVideoRetrievalConfig) -> None:
        self.config = config
        self.dataset = registry.datasets.build(config.dataset)
        self.tokenizer = load_tokenizer(config.dataset["tokenizer"])

    def evaluate(self, model: VideoCLIP) -> dict[str, Any]:
        """Metrics and chance in both directions (ties count against the model), and examples to look at."""
        embeddings = self.embed(model)
        right = np.arange(len(self.dataset))
        t2v = ranks(embeddings.text, embeddings.video, right)
        v2t = ranks(embeddings.video, embeddings.text, right)
        return {
            "num_queries": len(self.dataset),
            "missing_videos": len(self.dataset.missing_videos),
            "metrics": summary(t2v, prefix="t2v") | summary(v2t, prefix="v2t"),
            "chance": chance(len(self.dataset)),
            "examples": self._examples(embeddings, t2v),
        }

    @torch.inference_mode()
    def embed(self, model: VideoCLIP) -> Embeddings:
        device = next(model.parameters()).device
        video, text = [], []
        for clips in batches(self.dataset.clips, self.config.clips_at_once):
            rows = [self.dataset.features(clip, max_video_len=model.config.max_video_len) for clip in clips]
            width = rows[0].shape[1]
            if width != model.config.feature_dim:
                raise ValueError(
                    f"{self.dataset.config.features} holds features of width {width}, "
                    f"the model takes {model.config.feature_dim}"
                )
            video.append(model.encode_video(*(x.to(device) for x in pad(rows))).float().cpu())
            ids = self.tokenizer(
                [clip.caption for clip in clips],
                padding=True,
                truncation=True,
                max_length=64,
                return_tensors="pt",
            )
            mask = ids["attention_mask"].bool()
            text.append(model.encode_text(ids["input_ids"].to(device), mask.to(device)).float().cpu())
        return Embeddings(torch.cat(video).numpy(), torch.cat(text).numpy())

    def _examples(self, embeddings: Embeddings, t2v: np.ndarray) -> list[dict[str, Any]]:
        shown = np.linspace(0, len(self.dataset) - 1, min(self.config.examples, len(self.dataset))).astype(int)
        examples = []
        for query in shown.tolist():
            scores = embeddings.video @ embeddings.text[query]

            def found(i: int, scores: np.ndarray = scores) -> dict[str, Any]:
                return asdict(self.dataset.clips[i]) | {"score": float(scores[i])}

            examples.append(
                {
                    "text": self.dataset.clips[query].caption,
                    "rank": int(t2v[query]),
                    "right": found(query),
                    "found": [found(i) for i in np.argsort(-scores, kind="stable")[:5].tolist()],
                }
            )
        return examples


def batches(items: Sequence[Any], size: int) -> Iterator[Sequence[Any]]:
    for begin in range(0, len(items), size):
        yield items[begin : begin + size]


def pad(rows: Sequence[Float[Tensor, "_ F"]]) -> tuple[Float[Tensor, "B T F"], Bool[Tensor, "B T"]]:
    features = torch.nn.utils.rnn.pad_sequence(list(rows), batch_first=True)
    lengths = torch.tensor([len(row) for row in rows])
    return features, torch.arange(features.shape[1]) < lengths[:, None]
