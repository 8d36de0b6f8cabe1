"""MSR-VTT (Xu et al., CVPR 2016): retrieval on the 1k-A and the full test set, and multiple choice."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmpt_plugin.datasets.corpus import AnnotatedClip, ClipCorpus, Corpus, CorpusConfig, take, unique, whole_video
from mmpt_plugin.registry import register_dataset


@dataclass(kw_only=True)
class MSRVTTConfig(CorpusConfig):
    """`annotations` is a csv with the columns video_id and sentence, one sentence a video (MSRVTT_JSFUSION_test.csv),
    or the corpus's own JSON with all sentences (MSRVTT_data.json, test_videodatainfo.json)."""

    video_ids: str | None = None
    """For the JSON: a csv whose column video_id lists the videos; None takes those that it says are of `split`."""
    split: str = "test"
    """train, validate or test, as the JSON names them."""


@register_dataset("msrvtt", dataclass=MSRVTTConfig)
class MSRVTT(ClipCorpus):
    """Whole videos, each with one sentence (csv) or with all of its own, twenty as a rule (JSON)."""

    config: MSRVTTConfig

    def __init__(self, config: MSRVTTConfig, split: str = "test") -> None:
        super().__init__(config, split)
        rows = self._csv() if Path(config.annotations).suffix == ".csv" else self._json(config.split)
        self.clips = self.keep(rows)

    def _csv(self) -> Iterator[tuple[str, AnnotatedClip]]:
        rows = list(self.read_csv(self.config.annotations, ["video_id", "sentence"]))
        unique(((where, row["video_id"]) for where, row in rows), "video")
        for where, row in rows:
            yield whole_video(row["video_id"], row["sentence"], where)

    def _json(self, split: str) -> Iterator[tuple[str, AnnotatedClip]]:
        path = self.config.annotations
        content = self.read_json(path)
        if self.config.video_ids is not None:
            rows = self.read_csv(self.config.video_ids, ["video_id"])
            videos = set(unique(((where, row["video_id"]) for where, row in rows), "video"))
        else:
            listed = take(content, "videos", list, path)
            videos = {take(video, "video_id", str, path) for video in listed if video.get("split") == split}
        for number, sentence in enumerate(take(content, "sentences", list, path)):
            where = f"{path}, sentence {number}"
            video_id, caption = (take(sentence, key, str, where) for key in ("video_id", "caption"))
            if video_id in videos:
                yield whole_video(video_id, caption, where)


@dataclass(frozen=True)
class Question:
    """Which of the options is the video's own."""

    video_id: str
    options: tuple[str, ...]
    answer: int


@dataclass(kw_only=True)
class MSRVTTMultipleChoiceConfig(CorpusConfig):
    """`annotations` is MSR_MC_test.csv: tabs between vid_key (msr7010 for video7010), a1 to a5, answer (0 to 4)."""


@register_dataset("msrvtt_multiple_choice", dataclass=MSRVTTMultipleChoiceConfig)
class MSRVTTMultipleChoice(Corpus):
    def __init__(self, config: MSRVTTMultipleChoiceConfig, split: str = "test") -> None:
        super().__init__(config, split)
        self.questions = self.with_features(self._read())

    def _read(self) -> Iterator[Question]:
        options = [f"a{number}" for number in range(1, 6)]
        for where, row in self.read_csv(self.config.annotations, ["vid_key", *options, "answer"], delimiter="\t"):
            if row["answer"] not in ("0", "1", "2", "3", "4"):
                raise ValueError(f"{where}: answer '{row['answer']}' is none of 0 to 4")
            video_id = "video" + row["vid_key"].removeprefix("msr")
            yield Question(video_id, tuple(row[option] for option in options), int(row["answer"]))
