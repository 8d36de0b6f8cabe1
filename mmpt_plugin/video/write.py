"""Write video files."""

import math
from collections.abc import Iterable
from fractions import Fraction
from itertools import count, takewhile
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from mmpt_plugin.files import atomic_write
from mmpt_plugin.video.decode import VideoError, formats, probe, read_sound, stream_frames

# With mbtree, about 1 % of the encodings of the same frames differ slightly.
X264 = {"preset": "veryfast", "crf": "21", "x264-params": "mbtree=0"}
SOUND_RATE, SOUND_SAMPLES = 48_000, 1024  # AAC has frames of 1024 samples
EXCERPT_HEIGHT, EXCERPT_FPS = 540, 30  # at most


def write_video(
    path: Path,
    frames: Iterable[UInt8[np.ndarray, "H W 3"]],
    *,
    fps: int | Fraction,
    sound: Iterable[av.AudioFrame] | None = None,
    num_threads: int = 1,
) -> None:
    """Write H.264 in mp4, atomically. Width and height must be even; `sound` is that of `read_sound`, as AAC.

    The output is deterministic with one thread; with more, or 0 for one per core, it depends on the machine.
    """

    def write(temporary: Path) -> None:
        with av.open(str(temporary), "w", format="mp4") as container:
            stream = None
            for frame in frames:
                if stream is None:
                    stream = container.add_stream("libx264", rate=fps, options=X264)
                    stream.height, stream.width = frame.shape[:2]
                    if stream.height % 2 or stream.width % 2:
                        raise VideoError(f"{path}: {stream.width}x{stream.height} frames; both sides must be even")
                    stream.pix_fmt = "yuv420p"
                    stream.thread_count = num_threads
                    heard = None if sound is None else container.add_stream("aac", rate=SOUND_RATE, layout="stereo")
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            if stream is None:
                raise VideoError(f"no frames for {path}")
            container.mux(stream.encode())
            if heard is not None:
                for samples in [*(sound or ()), None]:
                    container.mux(heard.encode(samples))

    atomic_write(path, write)


def write_excerpt(path: Path, video: Path, start: float, end: float) -> None:
    """Write seconds `start` to `end` of a video as H.264 and AAC in mp4, which all browsers play, atomically."""
    info = probe(video)
    rate = Fraction(info.fps).limit_denominator(1001) if info.fps > 0 else Fraction(25)
    rate /= max(1, math.ceil(rate / EXCERPT_FPS))
    times = takewhile(lambda time: time < end, (start + float(number / rate) for number in count()))
    sound = None
    if formats(video).audio is not None:
        sound = read_sound(video, start, end, rate=SOUND_RATE, samples=SOUND_SAMPLES)
    write_video(path, stream_frames(video, times, max_height=EXCERPT_HEIGHT), fps=rate, sound=sound, num_threads=0)
