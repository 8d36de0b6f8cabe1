"""MSR-VTT (Xu et al., CVPR 2016): retrieval on the 1k-A and the full test set, and multiple choice."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus, Corpus, CorpusConfig, whole_video
from mmpt_plugin.corpora.readers import check_choice, entries, published_split, unique
from mmpt_plugin.errors import require
from mmpt_plugin.registry import register_corpus

SPLITS = {"train": "train", "valid": "validate", "test": "test"}


@dataclass(kw_only=True)
class MSRVTTConfig(CorpusConfig):
    """`annotations` is a csv file with the columns video_id and sentence, one sentence per video
    (MSRVTT_JSFUSION_test.csv), or the published JSON file with all sentences (MSRVTT_data.json,
    test_videodatainfo.json)."""

    video_ids: Any = None
    """Only for JSON annotations: a csv file, or a list of csv files, whose column video_id lists the videos to read.
    Null reads the videos of `split`."""
    exclude: list[str] = field(default_factory=list)
    """Only for JSON annotations: csv files whose column video_id lists videos to exclude."""
    split: str = "test"
    """Only for JSON annotations: train, valid or test. The JSON file calls valid validate."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.video_ids is not None:
            self.video_ids = [self.video_ids] if isinstance(self.video_ids, str) else list(self.video_ids)
            if not self.video_ids or not all(isinstance(path, str) for path in self.video_ids):
                raise ValueError(f"dataset.video_ids must be a csv file or a list of csv files, got {self.video_ids}")
        if Path(self.annotations).suffix == ".csv" and (self.video_ids or self.exclude or self.split != "test"):
            raise ValueError(
                f"dataset.video_ids, exclude and split are only for JSON annotations: all of {self.annotations} is read"
            )


@register_corpus("msrvtt", dataclass=MSRVTTConfig)
class MSRVTT(ClipCorpus):
    """MSR-VTT (Xu et al., CVPR 2016): videos with one sentence each (csv), or with all, usually 20 (JSON)."""

    config: MSRVTTConfig

    def __init__(self, config: MSRVTTConfig) -> None:
        super().__init__(config)
        self.clips = self.keep(self._csv() if Path(config.annotations).suffix == ".csv" else self._json())

    def _csv(self) -> Iterator[tuple[str, AnnotatedClip]]:
        rows = list(self.read_csv(self.config.annotations, ["video_id", "sentence"]))
        unique(((where, row["video_id"]) for where, row in rows), "video")
        for where, row in rows:
            yield whole_video(row["video_id"], row["sentence"], where)

    def _json(self) -> Iterator[tuple[str, AnnotatedClip]]:
        path = self.config.annotations
        content = self.read_json(path)
        chosen = self._chosen(content)
        described = set()
        for number, sentence in enumerate(require(content, "sentences", list, path)):
            where = f"{path}, sentence {number}"
            video_id, caption = (require(sentence, key, str, where) for key in ("video_id", "caption"))
            if video_id in chosen:
                described.add(video_id)
                yield whole_video(video_id, caption, where)
        if lacking := [video_id for video_id in chosen if video_id not in described]:
            raise ValueError(f"{path}: no sentences for {len(lacking)} videos, such as {', '.join(lacking[:5])}")

    def _chosen(self, content: Any) -> dict[str, None]:
        """The ids of the videos to read, in order."""
        path = self.config.annotations
        if self.config.video_ids is not None:
            chosen = [video_id for listed in self.config.video_ids for video_id in self._listed(listed)]
        else:
            videos = [
                (require(video, "video_id", str, where), require(video, "split", str, where))
                for where, video in entries(require(content, "videos", list, path), f"{path}, videos")
            ]
            wanted = published_split(self.config.split, SPLITS)
            check_choice("split", wanted, [split for _, split in videos], path)
            chosen = [video_id for video_id, split in videos if split == wanted]
        left_out = {video_id for listed in self.config.exclude for video_id in self._listed(listed)}
        return dict.fromkeys(video_id for video_id in chosen if video_id not in left_out)

    def _listed(self, path: str) -> list[str]:
        return unique(((where, row["video_id"]) for where, row in self.read_csv(path, ["video_id"])), "video")


@dataclass(frozen=True)
class Question:
    """A multiple-choice question: `options[answer]` is the sentence of the video."""

    video_id: str
    options: tuple[str, ...]
    answer: int


@dataclass(kw_only=True)
class MSRVTTMultipleChoiceConfig(CorpusConfig):
    """`annotations` is MSR_MC_test.csv, tab-separated, with the columns vid_key (msr7010 for video7010), a1 to a5, and
    answer (0 to 4)."""


@register_corpus("msrvtt_multiple_choice", dataclass=MSRVTTMultipleChoiceConfig)
class MSRVTTMultipleChoice(Corpus):
    """MSR-VTT's multiple-choice questions: a video and five sentences, one of which describes it."""

    def __init__(self, config: MSRVTTMultipleChoiceConfig) -> None:
        super().__init__(config)
        self.questions = self.with_features(self._read())

    def _read(self) -> Iterator[Question]:
        options = [f"a{number}" for number in range(1, 6)]
        for where, row in self.read_csv(self.config.annotations, ["vid_key", *options, "answer"], delimiter="\t"):
            if row["answer"] not in ("0", "1", "2", "3", "4"):
                raise ValueError(f"{where}: answer must be 0 to 4, got '{row['answer']}'")
            video_id = "video" + row["vid_key"].removeprefix("msr")
            yield Question(video_id, tuple(row[option] for option in options), int(row["answer"]))
