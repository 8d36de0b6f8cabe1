"""LSMDC (Rohrbach et al., IJCV 2017): short clips of movies, each a file of its own, with a sentence."""

from collections.abc import Iterator
from dataclasses import dataclass

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus, CorpusConfig, whole_video
from mmpt_plugin.registry import register_corpus

COLUMNS = ("clip id", "aligned start", "aligned end", "extracted start", "extracted end", "sentence")


@dataclass(kw_only=True)
class LSMDCConfig(CorpusConfig):
    """`annotations` is a file of LSMDC16, such as LSMDC16_challenge_1000_publictect.csv: six cells per line, separated
    by tabs, without a header: clip id, aligned start and end, extracted start and end, sentence."""


@register_corpus("lsmdc", dataclass=LSMDCConfig)
class LSMDC(ClipCorpus):
    """LSMDC's clips, one sentence per line of the file (Rohrbach et al., IJCV 2017).

    A clip's id, such as `0001_American_Beauty_00.00.51.926-00.00.54.129`, is the name of its video file without the
    suffix. A clip on several lines has several captions. The times are those of the clip in its movie, and are not
    used. Quotation marks have no special meaning.
    """

    config: LSMDCConfig

    def __init__(self, config: LSMDCConfig) -> None:
        super().__init__(config)
        self.clips = self.keep(self._read())

    def _read(self) -> Iterator[tuple[str, AnnotatedClip]]:
        path = self.config.annotations
        for number, line in enumerate(self.read_text(path).split("\n"), 1):
            if line.strip():
                where = f"{path}:{number}"
                cells = [cell.strip() for cell in line.split("\t")]
                if len(cells) != len(COLUMNS):
                    raise ValueError(
                        f"{where}: expected {len(COLUMNS)} cells separated by tabs ({', '.join(COLUMNS)}), "
                        f"got {len(cells)}"
                    )
                if not cells[0]:
                    raise ValueError(f"{where}: the clip id is empty")
                yield whole_video(cells[0], cells[-1], where)
