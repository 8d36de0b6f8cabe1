"""Videos with one label each: HMDB51, UCF101 and Kinetics by their official split files, or a custom csv file."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmpt_plugin.corpora.corpus import Corpus, CorpusConfig
from mmpt_plugin.corpora.readers import DataNotThere, is_count, published_split, unique
from mmpt_plugin.registry import register_corpus


@dataclass(frozen=True)
class LabelledVideo:
    """A video and its label, an index of `LabelledVideos.labels`."""

    video_id: str
    label: int


class LabelledVideos(Corpus):
    """Videos with one label each. `labels` are phrases, such as "apply eye makeup"; a subclass implements `read`."""

    def __init__(self, config: CorpusConfig) -> None:
        super().__init__(config)
        rows = list(self.read())
        unique(((where, video_id) for where, video_id, _ in rows), "video")
        names = self.names() or sorted({name for _, _, name in rows})
        for where, _, name in rows:
            if name not in names:
                raise ValueError(f"{where}: label '{name}' is not one of the {len(names)} listed labels")
        position = {name: number for number, name in enumerate(names)}
        self.labels = [words(name) for name in names]
        self.videos = self.with_features(LabelledVideo(video_id, position[name]) for _, video_id, name in rows)

    def read(self) -> Iterator[tuple[str, str, str]]:
        """Yield (location, video id, label) of each video; the location is used in error messages."""
        raise NotImplementedError

    def names(self) -> list[str]:
        """All labels, if a file lists them; an empty list means the labels that occur, sorted."""
        return []


def words(name: str) -> str:
    """A label as lower-case words: `ApplyEyeMakeup` -> "apply eye makeup", `brush_hair` -> "brush hair"."""
    return re.sub(r"(?<=[a-z])(?=[A-Z])|_", " ", name).lower()


def check_fold(fold: int) -> None:
    """ValueError unless `fold` is 1, 2 or 3."""
    if fold not in (1, 2, 3):
        raise ValueError(f"dataset.fold must be 1, 2 or 3, got {fold}")


@register_corpus("labelled_csv", dataclass=CorpusConfig)
class LabelledCSV(LabelledVideos):
    """Videos with one label each; `annotations` is a csv file with the columns video_id and label."""

    def read(self) -> Iterator[tuple[str, str, str]]:
        """See `LabelledVideos.read`."""
        for where, row in self.read_csv(self.config.annotations, ["video_id", "label"]):
            yield where, row["video_id"], row["label"]


HMDB51_SPLITS = {"train": "1", "test": "2"}
UCF101_SPLITS = {"train": "train", "test": "test"}


@dataclass(kw_only=True)
class HMDB51Config(CorpusConfig):
    """`annotations` is the folder of `{label}_test_split{1,2,3}.txt`, as published."""

    fold: int = 1
    """Which of the three published splits to read: 1, 2 or 3."""
    split: str = "test"
    """train or test."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fold(self.fold)
        published_split(self.split, HMDB51_SPLITS)


@register_corpus("hmdb51", dataclass=HMDB51Config)
class HMDB51(LabelledVideos):
    """HMDB51 (Kuehne et al., ICCV 2011): its split files mark a video with 1 (train), 2 (test) or 0 (neither)."""

    config: HMDB51Config

    def read(self) -> Iterator[tuple[str, str, str]]:
        """See `LabelledVideos.read`; DataNotThere if the fold has no split files, ValueError for another mark."""
        suffix, wanted = f"_test_split{self.config.fold}.txt", published_split(self.config.split, HMDB51_SPLITS)
        files = sorted(Path(self.config.annotations).glob(f"*{suffix}"))
        if not files:
            raise DataNotThere(f"no annotations *{suffix} in {self.config.annotations}")
        for path in files:
            for where, line in self.read_lines(path):
                video, _, part = line.rpartition(" ")
                if part not in ("0", "1", "2"):
                    raise ValueError(f"{where}: expected a line 'VIDEO 0', 'VIDEO 1' or 'VIDEO 2', got '{line}'")
                if part == wanted:
                    yield where, video, path.name.removesuffix(suffix)


@dataclass(kw_only=True)
class UCF101Config(CorpusConfig):
    """`annotations` is the published folder ucfTrainTestlist, with classInd.txt and {train,test}list0{1,2,3}.txt."""

    fold: int = 1
    """Which of the three published splits to read: 1, 2 or 3."""
    split: str = "test"
    """train or test."""

    def __post_init__(self) -> None:
        super().__post_init__()
        check_fold(self.fold)
        published_split(self.split, UCF101_SPLITS)


@register_corpus("ucf101", dataclass=UCF101Config)
class UCF101(LabelledVideos):
    """UCF101 (Soomro et al., 2012): its lists have lines `label/video`; train lists add the label's number."""

    config: UCF101Config

    def read(self) -> Iterator[tuple[str, str, str]]:
        """See `LabelledVideos.read`."""
        file = f"{self.config.split}list{self.config.fold:02d}.txt"
        for where, line in self.read_lines(Path(self.config.annotations) / file):
            name, _, video = line.split()[0].partition("/")
            yield where, video, name

    def names(self) -> list[str]:
        """See `LabelledVideos.names`; they are in the order of `classInd.txt`."""
        return [line.split()[-1] for _, line in self.read_lines(Path(self.config.annotations) / "classInd.txt")]


@register_corpus("kinetics", dataclass=CorpusConfig)
class Kinetics(LabelledVideos):
    """Kinetics (Kay et al., 2017); `annotations` is a csv file: label, youtube_id, time_start and time_end.

    Features are named `{youtube_id}_{start}_{end}`, with times of six digits, as most downloads name the videos.
    """

    def read(self) -> Iterator[tuple[str, str, str]]:
        """See `LabelledVideos.read`; ValueError unless times are whole seconds."""
        columns = ["label", "youtube_id", "time_start", "time_end"]
        for where, row in self.read_csv(self.config.annotations, columns):
            if not (is_count(row["time_start"]) and is_count(row["time_end"])):
                raise ValueError(
                    f"{where}: time_start and time_end must be whole seconds, got "
                    f"'{row['time_start']}' and '{row['time_end']}'"
                )
            yield where, f"{row['youtube_id']}_{int(row['time_start']):06d}_{int(row['time_end']):06d}", row["label"]
