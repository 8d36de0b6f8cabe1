"""Write video files."""

from collections.abc import Iterable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import UInt8

from mmpt_plugin.files import atomic_write
from mmpt_plugin.video.decode import VideoError

# With mbtree, about 1 % of the encodings of the same frames differ slightly.
X264 = {"preset": "veryfast", "crf": "21", "x264-params": "mbtree=0"}


def write_video(path: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], *, fps: int | Fraction) -> None:
    """Write H.264 in mp4, atomically and deterministically. Width and height must be even."""

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
                    stream.thread_count = 1  # with more threads the output depends on the machine
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            if stream is None:
                raise VideoError(f"no frames for {path}")
            container.mux(stream.encode())

    atomic_write(path, write)
