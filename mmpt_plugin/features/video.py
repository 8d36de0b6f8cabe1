"""Video files in and out, by PyAV. S seconds, F frames a second."""

import errno
import math
import os
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
from av.filter import Graph
from jaxtyping import UInt8

SUFFIXES = (".mp4", ".mkv", ".webm", ".avi", ".mov")


class VideoError(ValueError):
    """A video that can't be used: which, and why, in one line."""


@dataclass(frozen=True)
class VideoInfo:
    duration: float
    """Seconds, by the container's word."""
    fps: float
    width: int
    height: int


@contextmanager
def opened(path: Path) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """The container and its first video stream; whatever goes wrong inside is a VideoError."""
    if path.is_dir():
        raise VideoError(f"{path} is a folder, not a video")
    try:
        # Metadata is not always UTF-8, and never needed.
        with av.open(str(path), metadata_errors="ignore") as container:
            if not container.streams.video:
                raise VideoError(f"{path} has no video stream")
            yield container, container.streams.video[0]
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or str(error)
        if getattr(error, "errno", None) == errno.ENOENT:
            reason = "no such file"
        raise VideoError(f"{path} can't be decoded: {reason}") from error


def probe(path: Path) -> VideoInfo:
    with opened(path) as (container, stream):
        return VideoInfo(
            stated_duration(container, stream), float(stream.average_rate or 0), stream.width, stream.height
        )


def stated_duration(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Seconds; 0 where neither the stream nor the container says."""
    if stream.duration is not None and stream.time_base is not None:
        return float(stream.duration * stream.time_base)
    return (container.duration or 0) / av.time_base


def read_seconds(path: Path, *, fps: int, size: int) -> Iterator[UInt8[np.ndarray, "F H W 3"]]:
    """One array (fps, size, size, 3) of RGB a second of video, the last completed with black frames.

    ffmpeg's own filters resample to `fps` frames a second by time stamp, scale the shorter side to `size`
    (bicubic) and crop the centre. Memory does not grow with the video. A file that ends more than a second
    before its stated duration raises at the end.
    """
    second: list[np.ndarray] = []
    count = 0
    with opened(path) as (container, stream):
        stream.thread_type = "AUTO"
        for frame in resampled(container, stream, fps, size):
            second.append(frame)
            count += 1
            if len(second) == fps:
                yield np.stack(second)
                second = []
        if count == 0:
            raise VideoError(f"{path} can't be decoded: it has no frames")
        stated = stated_duration(container, stream)
    if second:
        yield np.stack(second + [np.zeros_like(second[0])] * (fps - len(second)))
    if count / fps < stated - 1:
        raise VideoError(f"{path} is cut short: {count / fps:.1f} s could be decoded of {stated:.1f} s")


def resampled(
    container: av.container.InputContainer, stream: av.VideoStream, fps: int, size: int
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    graph: Graph | None = None
    for frame in container.decode(stream):
        if graph is None:
            graph = filter_graph(stream, frame, fps, size)
        graph.vpush(frame)
        yield from pulled(graph)
    if graph is not None:
        graph.vpush(None)
        yield from pulled(graph)


def filter_graph(stream: av.VideoStream, frame: av.VideoFrame, fps: int, size: int) -> Graph:
    """Turn upright, resample in time, scale, crop, to RGB."""
    graph = Graph()
    upright = {
        90: [("transpose", "cclock")],
        180: [("hflip", ""), ("vflip", "")],
        270: [("transpose", "clock")],
    }
    chain = [
        graph.add_buffer(template=stream, width=frame.width, height=frame.height, format=frame.format),
        *(graph.add(name, arguments) for name, arguments in upright.get(frame.rotation % 360, [])),
        graph.add("fps", f"fps={fps}"),
        graph.add("scale", f"w='if(gt(iw,ih),-2,{size})':h='if(gt(iw,ih),{size},-2)':flags=bicubic"),
        graph.add("crop", f"{size}:{size}"),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()
    return graph


def pulled(graph: Graph) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    while True:
        try:
            yield graph.vpull().to_ndarray()
        except (av.BlockingIOError, av.EOFError):
            return


def read_frames(path: Path, times: Sequence[float], *, height: int) -> list[UInt8[np.ndarray, "H W 3"]]:
    """The frames shown at these times (seconds), scaled to `height`; a time after the end gives the last frame."""
    frames = []
    with opened(path) as (container, stream):
        base = stream.time_base or 1 / av.time_base
        for time in times:
            container.seek(max(0, math.floor(time / base)), stream=stream, backward=True)
            shown = None
            for frame in container.decode(stream):
                if shown is not None and frame.time is not None and frame.time > time:
                    break
                shown = frame
            if shown is None:
                raise VideoError(f"{path} has no frame at {time:g} s")
            width = max(2, round(shown.width * height / shown.height / 2) * 2)
            frames.append(shown.to_ndarray(format="rgb24", width=width, height=height))
    return frames


def write_video(path: Path, frames: Iterable[UInt8[np.ndarray, "H W 3"]], *, fps: int) -> None:
    """H.264 in mp4, whole or not at all; equal frames give equal bytes."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with av.open(str(beside), "w", format="mp4") as container:
            stream = None
            for frame in frames:
                if stream is None:
                    stream = container.add_stream("libx264", rate=fps, options={"preset": "veryfast", "crf": "21"})
                    stream.height, stream.width = frame.shape[:2]
                    stream.pix_fmt = "yuv420p"
                    stream.thread_count = 1
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            if stream is None:
                raise VideoError(f"no frames for {path}")
            container.mux(stream.encode())
        beside.replace(path)
    finally:
        beside.unlink(missing_ok=True)
