"""Text-to-video and video-to-text retrieval by dot product.

V clips, Q captions, D embedding width.
"""

from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus
from mmpt_plugin.metrics.retrieval import best_member_ranks, ranks, retrieval_chance, retrieval_metrics
from mmpt_plugin.models.embedding import Embedder, read_ahead
from mmpt_plugin.registry import register_task
from mmpt_plugin.tasks.benchmark import Benchmark, BenchmarkConfig, evenly_spaced


@dataclass(kw_only=True)
class TextVideoRetrievalConfig(BenchmarkConfig):
    """`dataset` is a corpus of captioned clips, such as `{_name: jsonl, annotations: ..., features: ..., ...}`."""

    examples: int = 10
    """Number of queries that the result lists with their top clips, evenly spaced over the data."""


@dataclass(frozen=True)
class Embeddings:
    """Embeddings of clips and captions; caption j describes clip `right[j]`."""

    video: Float[np.ndarray, "V D"]
    text: Float[np.ndarray, "Q D"]
    right: Int[np.ndarray, " Q"]


@register_task("text_video_retrieval", dataclass=TextVideoRetrievalConfig)
class TextVideoRetrieval(Benchmark[ClipCorpus]):
    """Text-to-video and video-to-text retrieval among all clips of the data set, by dot product.

    If a clip has several captions, each caption is a separate query. In video-to-text retrieval, the score of a clip
    is that of its best caption, as in the papers on MSVD and VATEX.
    """

    config: TextVideoRetrievalConfig
    needs = "clips"

    def __init__(self, config: TextVideoRetrievalConfig) -> None:
        super().__init__(config)
        first: dict[tuple[str, float, float], AnnotatedClip] = {}
        for clip in self.dataset.clips:
            first.setdefault((clip.video_id, clip.start, clip.end), clip)
        self.candidates = list(first.values())
        position = {key: number for number, key in enumerate(first)}
        self.right = np.array([position[clip.video_id, clip.start, clip.end] for clip in self.dataset.clips])

    def evaluate(self, model: Embedder) -> dict[str, Any]:
        """Metrics and chance in both directions, t2v and v2t, and example queries; ties count against the model."""
        embeddings = self.embed(model)
        t2v = ranks(embeddings.text, embeddings.video, embeddings.right)
        v2t = best_member_ranks(embeddings.video, embeddings.text, embeddings.right)
        metrics = retrieval_metrics(t2v, prefix="t2v") | retrieval_metrics(v2t, prefix="v2t")
        counts = {"num_queries": len(self.dataset.clips), "num_clips": len(self.candidates)}
        result = self.result(counts, metrics, retrieval_chance(len(self.candidates)))
        return result | {"examples": self._examples(embeddings, t2v)}

    def embed(self, model: Embedder) -> Embeddings:
        """The vectors of all clips and captions; clips are truncated to the model's max_video_len."""
        length = model.config.max_video_len
        rows = read_ahead(partial(self.dataset.features, max_video_len=length), self.candidates)
        text = self.encode_texts(model, [clip.caption for clip in self.dataset.clips])
        return Embeddings(self.encode_videos(model, rows), text, self.right)

    def _examples(self, embeddings: Embeddings, t2v: Int[np.ndarray, " Q"]) -> list[dict[str, Any]]:
        clips = self.dataset.clips
        examples = []
        for query in evenly_spaced(len(clips), self.config.examples):
            scores, right = embeddings.video @ embeddings.text[query], int(self.right[query])

            def found(i: int, query: int = query, scores: np.ndarray = scores, right: int = right) -> dict[str, Any]:
                return asdict(clips[query] if i == right else self.candidates[i]) | {"score": float(scores[i])}

            examples.append(
                {
                    "text": clips[query].caption,
                    "rank": int(t2v[query]),
                    "right": found(right),
                    "found": [found(i) for i in np.argsort(-scores, kind="stable")[:5].tolist()],
                }
            )
        return examples
