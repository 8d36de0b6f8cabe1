"""MSR-VTT (Xu et al., CVPR 2016): retrieval on the 1k-A and the full test set, and multiple choice."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmpt_plugin.corpora.corpus import (
    AnnotatedClip,
    ClipCorpus,
    Corpus,
    CorpusConfig,
    check_choice,
    entries,
    take,
    unique,
    whole_video,
)
from mmpt_plugin.registry import register_corpus


@dataclass(kw_only=True)
class MSRVTTConfig(CorpusConfig):
    """`annotations` is a csv with the columns video_id and sentence, one sentence per video (MSRVTT_JSFUSION_test.csv),
    or the published JSON with all sentences (MSRVTT_data.json, test_videodatainfo.json)."""

    video_ids: Any = None
    """With the JSON: a csv file, or a list of them, whose column video_id names the videos to read. Null reads the
    videos of `split`."""
    exclude: list[str] = field(default_factory=list)
    """With the JSON: csv files whose column video_id names videos to leave out."""
    split: str = "test"
    """With the JSON: videos to read, train, validate or test. Ignored if `video_ids` is set."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.video_ids is not None:
            self.video_ids = [self.video_ids] if isinstance(self.video_ids, str) else list(self.video_ids)
            if not self.video_ids or not all(isinstance(path, str) for path in self.video_ids):
                raise ValueError(f"dataset.video_ids is a csv or a list of csvs, got {self.video_ids}")
        if Path(self.annotations).suffix == ".csv" and (self.video_ids or self.exclude or self.split != "test"):
            raise ValueError(
                f"dataset.video_ids, exclude and split pick videos of a JSON; all of {self.annotations} are read"
            )


@register_corpus("msrvtt", dataclass=MSRVTTConfig)
class MSRVTT(ClipCorpus):
    """MSR-VTT's videos, with one sentence each (csv) or all of them, usually 20 (JSON) (Xu et al., CVPR 2016)."""

    config: MSRVTTConfig

    def __init__(self, config: MSRVTTConfig, split: str = "test") -> None:
        super().__init__(config, split)
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
        for number, sentence in enumerate(take(content, "sentences", list, path)):
            where = f"{path}, sentence {number}"
            video_id, caption = (take(sentence, key, str, where) for key in ("video_id", "caption"))
            if video_id in chosen:
                described.add(video_id)
                yield whole_video(video_id, caption, where)
        if lacking := [video_id for video_id in chosen if video_id not in described]:
            raise ValueError(f"{path}: no sentences of {len(lacking)} videos, such as {', '.join(lacking[:5])}")

    def _chosen(self, content: Any) -> dict[str, None]:
        """The videos to read, as keys."""
        path = self.config.annotations
        if self.config.video_ids is not None:
            chosen = [video_id for listed in self.config.video_ids for video_id in self._listed(listed)]
        else:
            videos = [
                (take(video, "video_id", str, where), take(video, "split", str, where))
                for where, video in entries(take(content, "videos", list, path), f"{path}, videos")
            ]
            check_choice("split", self.config.split, [split for _, split in videos], path)
            chosen = [video_id for video_id, split in videos if split == self.config.split]
        left_out = {video_id for listed in self.config.exclude for video_id in self._listed(listed)}
        return dict.fromkeys(video_id for video_id in chosen if video_id not in left_out)

    def _listed(self, path: str) -> list[str]:
        return unique(((where, row["video_id"]) for where, row in self.read_csv(path, ["video_id"])), "video")


@dataclass(frozen=True)
class Question:
    """Which of the options is the video's own."""

    video_id: str
    options: tuple[str, ...]
    answer: int


@dataclass(kw_only=True)
class MSRVTTMultipleChoiceConfig(CorpusConfig):
    """`annotations` is MSR_MC_test.csv, tab-separated: vid_key (msr7010 for video7010), a1 to a5, answer (0 to 4)."""


@register_corpus("msrvtt_multiple_choice", dataclass=MSRVTTMultipleChoiceConfig)
class MSRVTTMultipleChoice(Corpus):
    """MSR-VTT's multiple-choice questions: a video and five sentences, of which one is its own."""

    def __init__(self, config: MSRVTTMultipleChoiceConfig, split: str = "test") -> None:
        super().__init__(config, split)
        self.questions = self.with_features(self._read())

    def _read(self) -> Iterator[Question]:
        options = [f"a{number}" for number in range(1, 6)]
        for where, row in self.read_csv(self.config.annotations, ["vid_key", *options, "answer"], delimiter="\t"):
            if row["answer"] not in ("0", "1", "2", "3", "4"):
                raise ValueError(f"{where}: answer '{row['answer']}' is not one of 0 to 4")
            video_id = "video" + row["vid_key"].removeprefix("msr")
            yield Question(video_id, tuple(row[option] for option in options), int(row["answer"]))
