"""MSVD (Chen and Dolan, ACL 2011): short YouTube clips with about 40 English sentences each."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus, CorpusConfig, whole_video
from mmpt_plugin.corpora.readers import unique
from mmpt_plugin.registry import register_corpus

COLUMNS = ["VideoID", "Start", "End", "Language", "Description"]


@dataclass(kw_only=True)
class MSVDConfig(CorpusConfig):
    """`annotations` is the published csv file with the columns VideoID, Start, End, Language and Description, or
    raw-captions.pkl: clip ids, and for each its sentences as lists of words, in lower case without punctuation."""

    video_ids: str
    """File with the clips of the split, one `VideoID_Start_End` per line. Feature files have the same names."""


@register_corpus("msvd", dataclass=MSVDConfig)
class MSVD(ClipCorpus):
    """MSVD's clips, each with all its English sentences."""

    config: MSVDConfig

    def __init__(self, config: MSVDConfig) -> None:
        super().__init__(config)
        self.clips = self.keep(self._read())

    def _read(self) -> Iterator[tuple[str, AnnotatedClip]]:
        path = self.config.annotations
        videos = unique(self.read_lines(self.config.video_ids), "video")
        sentences = self._pickle(videos) if Path(path).suffix == ".pkl" else self._csv(videos)
        for video_id in videos:
            if not sentences[video_id]:
                raise ValueError(f"{path}: no English sentences for '{video_id}'")
            for where, sentence in sentences[video_id]:
                yield whole_video(video_id, sentence, where)

    def _csv(self, videos: list[str]) -> dict[str, list[tuple[str, str]]]:
        """The location and text of each clip's sentences."""
        sentences: dict[str, list[tuple[str, str]]] = {video_id: [] for video_id in videos}
        for where, row in self.read_csv(self.config.annotations, COLUMNS):
            video_id = f"{row['VideoID']}_{row['Start']}_{row['End']}"
            if row["Language"] == "English" and row["Description"] and video_id in sentences:
                sentences[video_id].append((where, row["Description"]))
        return sentences

    def _pickle(self, videos: list[str]) -> dict[str, list[tuple[str, str]]]:
        """As `_csv`, from raw-captions.pkl; the words of a sentence are joined by blanks."""
        path = self.config.annotations
        content = self.read_pickle(path)
        sentences: dict[str, list[tuple[str, str]]] = {}
        for video_id in videos:
            own = content.get(video_id, []) if isinstance(content, dict) else None
            if not isinstance(own, list):
                raise ValueError(f"{path}: expected a mapping of clip ids to lists of sentences")
            for number, words in enumerate(own):
                if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
                    raise ValueError(
                        f"{path}: '{video_id}', sentence {number}: expected a list of words, got {words!r}"
                    )
            sentences[video_id] = [(f"{path}: '{video_id}'", " ".join(words)) for words in own]
        return sentences
