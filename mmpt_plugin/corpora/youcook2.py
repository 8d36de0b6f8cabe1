"""YouCook2 (Zhou et al., AAAI 2018): the steps of cooking videos, with one sentence each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus, CorpusConfig
from mmpt_plugin.corpora.readers import check_choice, check_segment, entries, is_count, published_split, unique
from mmpt_plugin.errors import require
from mmpt_plugin.registry import register_corpus

SPLITS = {"train": "training", "valid": "validation"}


@dataclass(kw_only=True)
class YouCook2Config(CorpusConfig):
    """`annotations` is youcookii_annotations_trainval.json, as published."""

    split: str = "valid"
    """train or valid: the subsets that the JSON file calls training and validation. The sentences of the test set are
    not published."""
    clips: str | None = None
    """File that lists the clips to read as `{"id": "VIDEO_NUMBER", ...}`; it replaces `split`. Either the original's
    youcook_val.pkl, or JSON."""

    RENAMED: ClassVar[dict[str, str]] = {"subset": "split"}


@register_corpus("youcook2", dataclass=YouCook2Config)
class YouCook2(ClipCorpus):
    """YouCook2's clips, one sentence each (Zhou et al., AAAI 2018)."""

    config: YouCook2Config

    def __init__(self, config: YouCook2Config) -> None:
        super().__init__(config)
        path = config.annotations
        self._database: dict[str, Any] = require(self.read_json(path), "database", dict, path)
        self.clips = self.keep(self._subset() if config.clips is None else self._listed(config.clips))

    def _subset(self) -> Iterator[tuple[str, AnnotatedClip]]:
        path = self.config.annotations
        subsets = {key: require(video, "subset", str, f"{path}: '{key}'") for key, video in self._database.items()}
        wanted = published_split(self.config.split, SPLITS)
        check_choice("subset", wanted, subsets.values(), path)
        for video_id, subset in subsets.items():
            where = f"{path}: '{video_id}'"
            if subset == wanted:
                for number in range(len(require(self._database[video_id], "annotations", list, where))):
                    yield self._clip(video_id, number, where)

    def _listed(self, path: str) -> Iterator[tuple[str, AnnotatedClip]]:
        content = self.read_json(path) if Path(path).suffix == ".json" else self.read_pickle(path)
        listed = ((where, require(entry, "id", str, where)) for where, entry in entries(content, path))
        for clip_id in unique(listed, "clip"):
            video_id, _, number = clip_id.rpartition("_")
            if video_id not in self._database or not is_count(number):
                raise ValueError(f"{path}: clip '{clip_id}' is not in {self.config.annotations}")
            yield self._clip(video_id, int(number), f"{path}: '{clip_id}', video '{video_id}'")

    def _clip(self, video_id: str, number: int, where: str) -> tuple[str, AnnotatedClip]:
        annotations = require(self._database[video_id], "annotations", list, where)
        where = f"{where}, annotation {number}"
        if number >= len(annotations):
            raise ValueError(f"{where}: the video has only {len(annotations)} annotations")
        sentence = require(annotations[number], "sentence", str, where)
        return where, AnnotatedClip(video_id, *check_segment(annotations[number].get("segment"), where), sentence)
