"""Decoding speed for S3D's input, compared with the ffmpeg command with the same filters in the same run.

    python -m benchmarks.decode --json

ffmpeg discards its frames, so a fraction of 1 would mean that passing them to Python costs nothing.
"""

import argparse
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from statistics import median

import numpy as np

from mmpt_plugin.video.decode import read_seconds
from mmpt_plugin.video.write import write_video

FPS, SIZE = 30, 224


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--video", type=Path, help="your own video (default: 60 s of 640x360, generated for the run)")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    ffmpeg = shutil.which("ffmpeg")
    if ffmpeg is None:
        print("benchmarks.decode needs the ffmpeg command, which is not on PATH", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        video = arguments.video or Path(folder) / "made.mp4"
        if arguments.video is None:
            write_video(video, moving_pattern(seconds=60), fps=FPS)
        num_frames = FPS * sum(1 for _ in read_seconds(video, fps=FPS, size=SIZE))
        # Alternate, so that both run under the same machine load.
        pairs = [(timed(lambda: read(video)), timed(lambda: run(ffmpeg, video))) for _ in range(arguments.repeats)]
    frames_per_s, ffmpeg_frames_per_s = (num_frames / median(seconds) for seconds in zip(*pairs, strict=True))
    print(f"{num_frames} frames of {SIZE}x{SIZE}: {frames_per_s:.0f}/s, ffmpeg {ffmpeg_frames_per_s:.0f}/s")
    if arguments.json:
        print(json.dumps({"frames_per_s": frames_per_s, "ffmpeg_fraction": frames_per_s / ffmpeg_frames_per_s}))
    return 0


def moving_pattern(*, seconds: int) -> Iterator[np.ndarray]:
    """Smooth moving colors with grain, which compress about as well as a real scene."""
    y, x = np.mgrid[0:360, 0:640].astype(np.float32)
    grain = np.random.default_rng(0).normal(0, 6, (360, 640, 3)).astype(np.float32)
    for n in range(seconds * FPS):
        waves = [np.sin(x / (40 + 20 * c) + n / 15) + np.cos(y / (30 + 15 * c) - n / 20) for c in range(3)]
        picture = 128 + 50 * np.stack(waves, axis=2) + np.roll(grain, 3 * n, axis=1)
        yield picture.clip(0, 255).astype(np.uint8)


def read(video: Path) -> None:
    for _ in read_seconds(video, fps=FPS, size=SIZE):
        pass


def run(ffmpeg: str, video: Path) -> None:
    scale = f"w='if(gt(iw,ih),-2,{SIZE})':h='if(gt(iw,ih),{SIZE},-2)':flags=bicubic"
    filters = f"fps={FPS},scale={scale},crop={SIZE}:{SIZE}"
    output = ["-pix_fmt", "rgb24", "-f", "rawvideo", "-"]
    subprocess.run(
        [ffmpeg, "-loglevel", "error", "-i", str(video), "-vf", filters, *output], stdout=subprocess.DEVNULL, check=True
    )


def timed(work: Callable[[], None]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


if __name__ == "__main__":
    sys.exit(main())
