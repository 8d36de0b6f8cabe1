"""Videos -> shards of JPEG frames, a folder for `dataset.videos`; resumable, in several processes."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from mmpt_plugin.files import writing
from mmpt_plugin.video.decode import read_all, timed
from mmpt_plugin.video.frame_cache import EncodedVideo, FrameSettings, FrameShards, to_jpeg
from mmpt_plugin.video.hwaccel import check_hwaccel, on_own_gpu
from mmpt_plugin.video.origin import origin
from mmpt_plugin.video.store import list_videos
from mmpt_plugin.video.workers import ExtractReport, advance, check_num_workers, work_through


def cache_frames(
    videos: Sequence[Path],
    out: Path,
    *,
    settings: FrameSettings,
    num_workers: int = 1,
    allow_missing: bool = False,
    hwaccel: str | None = None,
) -> ExtractReport:
    """Write shards of frames to `out`; `videos` are files and folders, which `list_videos` maps to video ids.

    Failures are reported as by `extract`. An interrupted run keeps the shards it has written. `hwaccel` is the hardware
    that decodes, such as cuda (NVDEC); the frames are the same.
    """
    check_num_workers(num_workers)
    check_hwaccel(hwaccel)
    listed = list_videos(videos, out=out)
    with writing(out, shared=True):
        shards = FrameShards(out, settings)

        def keep(report: ExtractReport, video: EncodedVideo) -> None:
            report.seconds += shards.add(video)

        try:
            return work_through(
                listed,
                FrameWork(settings, hwaccel),
                build=partial(FrameWork, settings, hwaccel),
                is_finished=shards.is_finished,
                keep=keep,
                num_workers=num_workers,
                allow_missing=allow_missing,
            )
        finally:
            shards.flush()


@dataclass(frozen=True)
class FrameWork:
    """Encode the frames of a video as JPEG."""

    settings: FrameSettings
    hwaccel: str | None = None

    def __call__(self, video_id: str, path: Path) -> EncodedVideo:
        made_from = origin(path, self.settings.fingerprint)
        duration = timed(path).duration
        fps, size, hwaccel = self.settings.fps, self.settings.size, on_own_gpu(self.hwaccel)
        pictures = read_all(path, fps=fps, size=size, scaling="pillow", hwaccel=hwaccel)
        jpegs = [to_jpeg(picture, quality=self.settings.quality) for picture in pictures]
        advance(duration)
        return EncodedVideo(video_id, duration, made_from, jpegs)
