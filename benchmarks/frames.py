"""Speed of sparse frame sampling from video files and from cached JPEGs, compared with decoding all frames.

    python -m benchmarks.frames --json

Reads 12 frames of 224 x 224, as a loader worker does, from a whole video and from clips of 10 s. The video is
generated: 60 s, 640x360, 30 frames per second, a key frame every 8.3 s (x264's default).
"""

import argparse
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from benchmarks.decode import FPS, moving_pattern
from mmpt_plugin.video.cache_frames import cache_frames
from mmpt_plugin.video.decode import read_all
from mmpt_plugin.video.frame_cache import FrameSettings, open_videos
from mmpt_plugin.video.sparse_frames import FramesConfig, Videos, read_clips
from mmpt_plugin.video.write import write_video

SECONDS, CLIP = 60, 10


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--num-frames", type=int, default=12)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    config = FramesConfig(num_frames=arguments.num_frames)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "videos").mkdir()
        write_video(folder / "videos" / "made.mp4", moving_pattern(seconds=SECONDS), fps=FPS)
        cache_frames([folder / "videos"], folder / "cache", settings=FrameSettings(size=config.size, fps=2))
        files, cache = open_videos(folder / "videos"), open_videos(folder / "cache")
        starts = [random.Random(i).uniform(0, SECONDS - CLIP) for i in range(arguments.repeats)]
        seconds: dict[str, list[float]] = {}
        for start in starts:  # alternate, so that all run under the same machine load
            for what, videos in (("files", files), ("cache", cache)):
                for which, clip in (("video", (0.0, float(SECONDS))), ("clip", (start, start + CLIP))):
                    seconds.setdefault(f"{what}_{which}", []).append(timed(videos, clip, config))
            seconds.setdefault("full_video", []).append(decoding_all(folder / "videos" / "made.mp4", config))
    rates = {f"{name}_frames_per_s": arguments.num_frames / median(times) for name, times in seconds.items()}
    ratios = {f"{name}_ratio": rates[f"{name}_frames_per_s"] / rates["full_video_frames_per_s"] for name in seconds}
    for name in seconds:
        print(f"{name:11} {rates[f'{name}_frames_per_s']:8.0f} frames/s, {ratios[f'{name}_ratio']:6.1f} x full")
    if arguments.json:
        print(json.dumps(rates | ratios))
    return 0


def timed(videos: Videos, clip: tuple[float, float], config: FramesConfig) -> float:
    return clock(lambda: len(read_clips(videos, "made", [clip], config)[0]))


def decoding_all(path: Path, config: FramesConfig) -> float:
    """Decode and scale all frames of the video."""
    return clock(lambda: sum(1 for _ in read_all(path, fps=FPS, size=config.size)))


def clock(work: Callable[[], int]) -> float:
    start = time.perf_counter()
    assert work() > 0
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
