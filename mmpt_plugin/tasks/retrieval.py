"""Text-to-video and video-to-text retrieval by dot product.

V clips, Q captions, D embedding width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus
from mmpt_plugin.metrics.retrieval import best_member_ranks, ranks, retrieval_chance, retrieval_metrics
from mmpt_plugin.models.embedding import Embedder, read_ahead
from mmpt_plugin.registry import register_task
from mmpt_plugin.tasks.benchmark import Benchmark, BenchmarkConfig
from mmpt_plugin.tasks.meanings import Meanings


@dataclass(kw_only=True)
class TextVideoRetrievalConfig(BenchmarkConfig):
    """`dataset` is a corpus of captioned clips, such as `{_name: jsonl, annotations: ..., features: ..., ...}`."""

    examples: int = 10
    """Number of queries that the result lists with their top clips: as many from the better half of all queries, sorted
    by rank, as from the worse (one more if the number is odd). Each half is cut into equal parts, and the middle query
    of each part is listed."""


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

    If the corpus knows what its clips mean, ranks are also counted to the first clip that means the same as the query's
    own (`t2v_meaning_...`), and the result has `oracles`: what a searcher reaches who knows only the meaning of every
    clip, or a part of it.
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
        known = any(clip.meaning for clip in self.candidates)
        self.meanings = Meanings(self.candidates, self.right) if known else None

    def evaluate(self, model: Embedder) -> dict[str, Any]:
        """Metrics and chance in both directions, t2v and v2t, and example queries; ties count against the model."""
        embeddings = self.embed(model)
        t2v = ranks(embeddings.text, embeddings.video, embeddings.right)
        v2t = best_member_ranks(embeddings.video, embeddings.text, embeddings.right)
        metrics = retrieval_metrics(t2v, prefix="t2v") | retrieval_metrics(v2t, prefix="v2t")
        chance = retrieval_chance(len(self.candidates))
        own = {"rank": t2v}
        oracles: dict[str, Any] = {}
        if self.meanings:
            by_meaning = self.meanings.ranks(embeddings.video, embeddings.text)
            for direction, ranked in by_meaning.items():
                metrics |= retrieval_metrics(ranked, prefix=f"{direction}_meaning")
            chance |= self.meanings.chance()
            own = {"meaning_rank": by_meaning["t2v"]} | own
            oracles = {"oracles": self.meanings.oracles()}
        counts = {"num_queries": len(self.dataset.clips), "num_clips": len(self.candidates)}
        return self.result(counts, metrics, chance) | oracles | {"examples": self._examples(embeddings, own)}

    def embed(self, model: Embedder) -> Embeddings:
        """The vectors of all clips and captions; clips are truncated to the model's max_video_len."""
        length = model.config.max_video_len
        rows = read_ahead(partial(self.dataset.features, max_video_len=length), self.candidates)
        text = self.encode_texts(model, [clip.caption for clip in self.dataset.clips])
        return Embeddings(self.encode_videos(model, rows), text, self.right)

    def _examples(self, embeddings: Embeddings, ranks: Mapping[str, Int[np.ndarray, " Q"]]) -> list[dict[str, Any]]:
        """Queries with their `ranks` by name, of which the first decides how well a query does, and their clips."""
        order = np.lexsort(list(ranks.values())[::-1])
        halves = better_and_worse(order.tolist(), self.config.examples)
        return [
            {"half": half, **{name: int(of[query]) for name, of in ranks.items()}, **self._example(embeddings, query)}
            for half, queries in halves.items()
            for query in queries
        ]

    def _example(self, embeddings: Embeddings, query: int) -> dict[str, Any]:
        own, right = self.dataset.clips[query], int(self.right[query])
        scores = embeddings.video @ embeddings.text[query]

        def found(i: int) -> dict[str, Any]:
            clip = asdict(own if i == right else self.candidates[i])
            return {key: value for key, value in clip.items() if value != {}} | {"score": float(scores[i])}

        first = np.argsort(-scores, kind="stable")[:5].tolist()
        return {"text": own.caption, "right": found(right), "found": [found(i) for i in first]}


def better_and_worse(order: Sequence[int], number: int) -> dict[str, list[int]]:
    """At most `number` queries of an order from best to worst: the middle ones of equal parts of each half."""
    middle, better = (len(order) + 1) // 2, (number + 1) // 2
    halves = {"better": (order[:middle], better), "worse": (order[middle:], number - better)}
    return {name: [half[place] for place in middles(len(half), parts)] for name, (half, parts) in halves.items()}


def middles(size: int, parts: int) -> list[int]:
    """The middle integers of equal parts of 0 to `size` - 1; all of them if there are fewer than `parts`."""
    parts = min(size, parts)
    return [(2 * part + 1) * size // (2 * parts) for part in range(parts)]
