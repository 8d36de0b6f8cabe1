"""VATEX (Wang et al., ICCV 2019): ten-second clips with ten English captions each."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from mmpt_plugin.corpora.corpus import AnnotatedClip, ClipCorpus, CorpusConfig, whole_video
from mmpt_plugin.corpora.readers import unique
from mmpt_plugin.errors import require
from mmpt_plugin.registry import register_corpus


@dataclass(kw_only=True)
class VATEXConfig(CorpusConfig):
    """`annotations` is vatex_training_v1.0.json or vatex_validation_v1.0.json: a list of `{"videoID":
    "YOUTUBE_start_end", "enCap": [...]}`."""

    video_ids: str | None = None
    """File with the ids of the videos to read, one per line. Null reads all. Retrieval papers test on 1,500 of the
    validation videos (Chen et al., CVPR 2020)."""
    exclude: list[str] = field(default_factory=list)
    """Files with ids of videos to leave out, one per line."""


@register_corpus("vatex", dataclass=VATEXConfig)
class VATEX(ClipCorpus):
    """VATEX's clips, each with all its English captions."""

    config: VATEXConfig

    def __init__(self, config: VATEXConfig) -> None:
        super().__init__(config)
        path = config.annotations
        records = self.read_records(path)
        videos = unique(((where, require(record, "videoID", str, where)) for where, record in records), "videoID")
        captions = [require(record, "enCap", list, where) for where, record in records]
        self.clips = self.keep(self._read(dict(zip(videos, captions, strict=True))))

    def _read(self, captions: dict[str, list[Any]]) -> Iterator[tuple[str, AnnotatedClip]]:
        listed = None if self.config.video_ids is None else unique(self.read_lines(self.config.video_ids), "video")
        left_out = {video_id for path in self.config.exclude for video_id in unique(self.read_lines(path), "video")}
        for video_id in captions if listed is None else listed:
            if video_id in left_out:
                continue
            if not captions.get(video_id):
                raise ValueError(f"{self.config.annotations}: no English captions for '{video_id}'")
            where = f"{self.config.annotations}: '{video_id}'"
            for caption in captions[video_id]:
                if not isinstance(caption, str):
                    raise ValueError(f"{where}: a caption must be a string, got {caption!r}")
                yield whole_video(video_id, caption, where)
