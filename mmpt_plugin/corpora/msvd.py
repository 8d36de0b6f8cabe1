"""MSVD (Chen and Dolan, ACL 2011): short YouTube clips with about 40 English sentences each."""

from collections.abc import Iterator
from dataclasses import dataclass

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus, CorpusConfig, whole_video
from mmpt_plugin.corpora.readers import unique
from mmpt_plugin.registry import register_corpus

COLUMNS = ["VideoID", "Start", "End", "Language", "Description"]


@dataclass(kw_only=True)
class MSVDConfig(CorpusConfig):
    """`annotations` is the published csv file with the columns VideoID, Start, End, Language and Description."""

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
        videos = unique(self.read_lines(self.config.video_ids), "video")
        sentences: dict[str, list[tuple[str, str]]] = {video_id: [] for video_id in videos}
        for where, row in self.read_csv(self.config.annotations, COLUMNS):
            video_id = f"{row['VideoID']}_{row['Start']}_{row['End']}"
            if row["Language"] == "English" and row["Description"] and video_id in sentences:
                sentences[video_id].append((where, row["Description"]))
        for video_id, own in sentences.items():
            if not own:
                raise ValueError(f"{self.config.annotations}: no English sentences for '{video_id}'")
            for where, sentence in own:
                yield whole_video(video_id, sentence, where)
