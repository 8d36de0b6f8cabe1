"""What the clips of a retrieval data set mean, and how well a searcher does who knows nothing else.

V clips, Q captions, D embedding width.
"""

from collections.abc import Iterable, Sequence

import numpy as np
from jaxtyping import Float, Int

from mmpt_plugin.corpora.corpus import AnnotatedClip
from mmpt_plugin.metrics.meaning import meaning_ranks, random_order_metrics


class Meanings:
    """The meanings of clips, of which caption j describes clip `right[j]`; several clips may mean the same."""

    def __init__(self, clips: Sequence[AnnotatedClip], right: Int[np.ndarray, " Q"]) -> None:
        self.right = right
        self.parts = tuple(clips[0].meaning)
        """The names of a meaning's parts, such as action and ingredient."""
        self.clips = [tuple(clip.meaning[part] for part in self.parts) for clip in clips]
        self.labels = numbered(self.clips)

    def ranks(
        self, video: Float[np.ndarray, "V D"], text: Float[np.ndarray, "Q D"]
    ) -> dict[str, Int[np.ndarray, " _"]]:
        """The rank of the best item that means the same: `t2v` for each caption, `v2t` for each clip."""
        every = np.arange(len(video))
        return {
            "t2v": meaning_ranks(text, video, every, wanted=self.labels[self.right], meaning=self.labels),
            "v2t": meaning_ranks(video, text, self.right, wanted=self.labels, meaning=self.labels),
        }

    def chance(self) -> dict[str, float]:
        """The expected metrics by meaning of a random order of all clips; those of the very clip are known without."""
        return {key: value for key, value in self.knowing(()).items() if "_meaning_" in key}

    def oracles(self) -> dict[str, dict[str, float]]:
        """The expected metrics of searchers who know one part of every meaning, or all of them, and guess the rest.

        Such a searcher puts the clips first that share what it knows with the query, in random order.
        """
        known = dict.fromkeys([*((part,) for part in self.parts), self.parts])
        return {" and ".join(parts): self.knowing(parts) for parts in known}

    def knowing(self, parts: Iterable[str]) -> dict[str, float]:
        """The expected metrics of a searcher who knows these parts, in both directions."""
        places = [self.parts.index(part) for part in parts]
        shared = group_sizes(numbered([tuple(clip[place] for place in places) for clip in self.clips]))
        same = group_sizes(self.labels)
        queries = {"t2v": self.right, "v2t": np.arange(len(self.clips))}
        metrics: dict[str, float] = {}
        for infix, right in (("", np.ones_like(same)), ("_meaning", same)):
            for direction, clips in queries.items():
                metrics |= random_order_metrics(shared[clips], right[clips], prefix=f"{direction}{infix}")
        return metrics


def numbered(keys: Sequence[tuple[str, ...]]) -> Int[np.ndarray, " V"]:
    """A number for each key, the same for equal keys."""
    numbers = {key: number for number, key in enumerate(dict.fromkeys(keys))}
    return np.array([numbers[key] for key in keys])


def group_sizes(labels: Int[np.ndarray, " V"]) -> Int[np.ndarray, " V"]:
    """For each clip, the number of clips with the same label."""
    sizes: Int[np.ndarray, " V"] = np.bincount(labels)[labels]
    return sizes
