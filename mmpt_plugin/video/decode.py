"""Decode video files with PyAV. S seconds, F frames per second."""

import errno
import math
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.filter import Graph
from av.stream import Disposition
from jaxtyping import UInt8

from mmpt_plugin.video.hwaccel import accelerator

SUFFIXES = (
    *(".mp4", ".mkv", ".webm", ".avi", ".mov", ".m4v", ".mpg", ".mpeg", ".mpe", ".wmv", ".asf", ".flv", ".f4v"),
    *(".3gp", ".3g2", ".mts", ".m2ts", ".vob", ".ogv"),
)
"""Suffixes of video files; .ts is left out because TypeScript uses it too."""

# Names of FFmpeg demuxers that return pictures although the file is not a video.
TEXT = ("tty", "bintext", "xbin", "adf", "idf")
IMAGES = ("image2", "apng", "ico")
# A file of a few kilobytes may claim to be larger or longer than any video, and would fill the memory or never end.
MOST_PIXELS, MOST_NARROW = 2**26, 64  # of a frame: 8192 x 8192; the ratio of its sides
MOST_SECONDS, LONGEST_PAUSE = 10**6, 3600  # of a video; between two frames
PLAYLISTS = ("hls", "dash", "concat", "sdp", "imf")


class VideoError(ValueError):
    """A video cannot be used; the message names the file and the reason in one line."""


@dataclass(frozen=True)
class VideoInfo:
    """What the container and its video stream state, without decoding."""

    duration: float
    """Seconds, as stated by the container."""
    fps: float
    """Frames per second, on average; 0 if the stream states none."""
    width: int
    height: int


@dataclass(frozen=True)
class Formats:
    """FFmpeg's names of what a video file is made of."""

    container: str
    """The demuxer, such as `mov,mp4,m4a,3gp,3g2,mj2`."""
    video: str
    """The video codec, such as `h264`."""
    pixels: str
    """The pixel format, such as `yuv420p`."""
    audio: str | None
    """The audio codec, such as `aac`; None without sound."""


@contextmanager
def opened(path: Path, hwaccel: str | None = None) -> Iterator[tuple[av.container.InputContainer, av.VideoStream]]:
    """Open a file and return the container and its video stream; errors of FFmpeg in the block become VideoError."""
    if path.is_dir():
        raise VideoError(f"{path} is a folder, not a video")
    try:
        # Metadata is not always UTF-8, and is not needed. FFmpeg parses a relative path "12:30.mp4" as protocol "12".
        with av.open(str(path.absolute()), metadata_errors="ignore", hwaccel=accelerator(hwaccel)) as container:
            if kind := other_kind(container.format.name):
                raise VideoError(f"{path} is {kind}, not a video")
            # Let FFmpeg choose: the first stream may be a cover picture.
            stream = container.streams.best("video")
            if stream is None:
                raise VideoError(f"{path} has no video stream")
            if stream.disposition & Disposition.attached_pic:
                raise VideoError(f"{path} has no video stream, only a cover picture")
            if stream.codec_context is None:
                raise VideoError(f"{path} can't be decoded: its index is damaged, or FFmpeg has no decoder for it")
            check_size(path, container, stream)
            stream.codec_context.options = {"max_pixels": str(MOST_PIXELS)}  # where a later frame is larger
            yield container, stream
    except (av.FFmpegError, OSError) as error:
        reason = error.strerror or str(error)
        if getattr(error, "errno", None) == errno.ENOENT:
            reason = "no such file"
        raise VideoError(f"{path} can't be decoded: {reason}") from error


def check_size(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> None:
    """VideoError for a video that claims frames or a duration that no video has."""
    least, most = sorted((stream.width, stream.height))
    if not least or least * most > MOST_PIXELS or most > MOST_NARROW * least:
        raise VideoError(f"{path} can't be decoded: it has frames of {stream.width} x {stream.height} pixels")
    if (seconds := stated_duration(container, stream)) > MOST_SECONDS:
        raise VideoError(f"{path} states a duration of {seconds:.0f} s, expected at most {MOST_SECONDS}")


def other_kind(demuxer: str) -> str | None:
    """The kind of a file that FFmpeg decodes although it is not a video; None for a video."""
    if demuxer in TEXT:
        return "a text file"
    if demuxer in IMAGES or demuxer.endswith("_pipe"):
        return "an image"
    return "a playlist" if demuxer in PLAYLISTS else None


def check_moving(path: Path) -> None:
    """VideoError unless two frames can be decoded, for files without a video suffix.

    AVIF and GIF images also open as videos, but have one frame.
    """
    with opened(path) as (container, stream):
        found = [frame for frame, _ in zip(container.decode(stream), range(2), strict=False)]
        if len(found) < 2:
            raise VideoError(f"{path} {'is an image' if found else 'has no frames'}, not a video")
        if found[0].pts is None:
            raise untimed(path)


def untimed(path: Path) -> VideoError:
    """The error for a video whose frames have no timestamps, with the command that adds them."""
    return VideoError(f"{path} can't be read: its frames have no timestamps; run `ffmpeg -i FILE -c copy OTHER.mp4`")


def probe(path: Path) -> VideoInfo:
    """The container's metadata, without decoding; width and height are as stored, before any rotation."""
    with opened(path) as (container, stream):
        return VideoInfo(
            stated_duration(container, stream),
            float(stream.average_rate or stream.guessed_rate or 0),
            stream.width,
            stream.height,
        )


def formats(path: Path) -> Formats:
    """Container and codecs of a video file, without decoding."""
    with opened(path) as (container, stream):
        sound = container.streams.best("audio")
        context = sound and sound.codec_context
        audio = None if sound is None else context.codec.canonical_name if context is not None else "unknown"
        video = stream.codec_context.codec.canonical_name
        return Formats(container.format.name, video, str(stream.pix_fmt), audio)


def timed(path: Path) -> VideoInfo:
    """`probe` of a video that states its duration; VideoError for one that does not."""
    info = probe(path)
    if info.duration <= 0:
        raise VideoError(f"{path} does not state its duration; run `ffmpeg -i FILE -c copy OTHER` to add it")
    return info


def stated_duration(container: av.container.InputContainer, stream: av.VideoStream) -> float:
    """Duration in seconds of the stream, or else of the container (its longest stream); 0 if neither is stated."""
    if stream.duration is not None:
        return float(stream.duration * stream.time_base)
    return float((container.duration or 0) / av.time_base)


def read_seconds(
    path: Path, *, fps: int, size: int, scaling: str = "ffmpeg", hwaccel: str | None = None
) -> Iterator[UInt8[np.ndarray, "F H W 3"]]:
    """One RGB array (fps, size, size, 3) per second of video; the last second is padded with black frames.

    FFmpeg filters resample to `fps` frames per second by timestamp, scale the shorter side to `size` (see SCALINGS)
    and crop the center. Memory does not grow with the length of the video. A file that ends more than a second before
    its stated duration raises VideoError at the end. `hwaccel` is the hardware that decodes, such as cuda; the frames
    are the same.
    """
    second = np.zeros((fps, size, size, 3), dtype=np.uint8)
    count = 0
    for frame in read_all(path, fps=fps, size=size, scaling=scaling, hwaccel=hwaccel):
        second[count % fps] = frame
        count += 1
        if count % fps == 0:
            yield second
            second = np.zeros_like(second)
    if count % fps:
        yield second


def read_all(
    path: Path, *, fps: int, size: int, scaling: str = "ffmpeg", hwaccel: str | None = None
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames of `read_seconds` one by one; frame k is the last frame up to the time (k + 1/2) / fps."""
    frame = None
    with opened(path, hwaccel) as (container, stream):
        if not stream.codec_context.is_hwaccel:
            stream.thread_type = "AUTO"
        steps = [("fps", f"fps={fps}"), *SCALINGS[scaling](size)]
        for frame in filtered(decoded(path, container, stream), stream, steps):
            yield frame
    if frame is None:
        raise VideoError(f"{path} can't be decoded: it has no frames")


def square(size: int) -> list[tuple[str, str]]:
    """Filters that scale the shorter side to `size` (bicubic) and crop the center, in the video's own color format."""
    return [
        ("scale", f"w='if(gt(iw,ih),-2,{size})':h='if(gt(iw,ih),{size},-2)':flags=bicubic"),
        ("crop", f"{size}:{size}"),
    ]


def pillow_square(size: int) -> list[tuple[str, str]]:
    """The same in RGB, with the rounding and the bicubic kernel of Pillow, by which CLIP's own code scales images."""

    def side(own: str, other: str) -> str:
        return f"'if(gt({own},{other}),trunc({size}*{own}/{other}),{size})'"

    return [
        ("format", "rgb24"),
        ("scale", f"w={side('iw', 'ih')}:h={side('ih', 'iw')}:flags=bicubic+accurate_rnd:param0=0:param1=0.5"),
        ("crop", f"{size}:{size}"),
    ]


SCALINGS = {"ffmpeg": square, "pillow": pillow_square}
"""How frames are scaled, by name: ffmpeg's in the video's color format, or Pillow's in RGB."""


def decoded(path: Path, container: av.container.InputContainer, stream: av.VideoStream) -> Iterator[av.VideoFrame]:
    """Decode the frames, with timestamps relative to the container's start.

    If only the container states a duration, it may be the duration of the audio. The file then counts as truncated
    only if all streams end early.
    """
    start, stated = container.start_time or 0, stated_duration(container, stream)
    end = shown = 0.0
    for packet in container.demux([stream] if stream.duration is not None else list(container.streams)):
        if packet.pts is not None:
            end = max(end, float((packet.pts + (packet.duration or 0)) * packet.time_base) - start / av.time_base)
        if packet.stream.index == stream.index:
            for frame in packet.decode():
                if frame.pts is None:
                    raise untimed(path)
                frame.pts -= round(start / av.time_base / stream.time_base)
                time = float(frame.pts * stream.time_base)
                if time > shown + LONGEST_PAUSE:
                    raise VideoError(f"{path} is damaged: after {shown:.1f} s, the next frame is at {time:.1f} s")
                shown = max(shown, time)
                yield frame
    if end < stated - 1:
        raise VideoError(f"{path} is truncated: it ends after {end:.1f} s of {stated:.1f} s")


def filtered(
    frames: Iterable[av.VideoFrame], stream: av.VideoStream, steps: Sequence[tuple[str, str]]
) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """Rotate the frames upright, apply FFmpeg filters (name, arguments), and convert to RGB."""
    graph: Graph | None = None
    for frame in frames:
        if graph is None:
            graph = filter_graph(stream, frame, steps)
        graph.vpush(frame)
        yield from pulled(graph)
    if graph is not None:
        graph.vpush(None)
        yield from pulled(graph)


def filter_graph(stream: av.VideoStream, frame: av.VideoFrame, steps: Sequence[tuple[str, str]]) -> Graph:
    """An FFmpeg graph that rotates frames upright, applies the steps (name, arguments), and converts to RGB."""
    upright = {
        90: [("transpose", "cclock")],
        180: [("hflip", ""), ("vflip", "")],
        270: [("transpose", "clock")],
    }
    graph = Graph()
    chain = [
        graph.add_buffer(template=stream, width=frame.width, height=frame.height, format=frame.format),
        # Hardware returns nv12, the same values in another layout, which FFmpeg converts to RGB by other code.
        *([graph.add("format", "yuv420p")] if frame.format.name == "nv12" else []),
        *(graph.add(name, arguments) for name, arguments in upright.get(frame.rotation % 360, [])),
        *(graph.add(name, arguments) for name, arguments in steps),
        graph.add("format", "rgb24"),
        graph.add("buffersink"),
    ]
    graph.link_nodes(*chain).configure()
    return graph


def pulled(graph: Graph) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames that the graph has ready; it may need more input for the next one."""
    while True:
        try:
            yield graph.vpull().to_ndarray()
        except (av.BlockingIOError, av.EOFError):
            return


def read_frames(path: Path, times: Sequence[float], *, height: int) -> list[UInt8[np.ndarray, "H W 3"]]:
    """The frames shown at these times (seconds), scaled to `height`; after the end, the last frame."""
    with opened(path) as (container, stream):
        shown = shown_at(path, container, stream, times)
        return list(filtered(shown, stream, [("scale", f"-2:{height}:flags=bicubic")]))


def stream_frames(path: Path, times: Iterable[float], *, max_height: int) -> Iterator[UInt8[np.ndarray, "H W 3"]]:
    """The frames shown at these times (seconds, ascending), one by one; both sides are even and keep their ratio."""
    height = f"2*trunc(min(ih,{max_height})/2)"
    with opened(path) as (container, stream):
        shown = shown_at(path, container, stream, times)
        yield from filtered(shown, stream, [("scale", f"w=-2:h='{height}':flags=bicubic")])


def read_sound(path: Path, start: float, end: float, *, rate: int, samples: int) -> Iterator[av.AudioFrame]:
    """Stereo sound from second `start` to `end` in frames of `samples`; timestamps count samples from `start`.

    Nothing for a video without sound. Sound that cannot be decoded ends early.
    """
    resampler = av.AudioResampler(format="fltp", layout="stereo", rate=rate, frame_size=samples)
    with opened(path) as (container, _):
        sound = container.streams.best("audio")
        if sound is None or sound.codec_context is None:
            return
        start, end = (time + (container.start_time or 0) / av.time_base for time in (start, end))
        container.seek(round(start / sound.time_base), stream=sound, backward=True)
        first: int | None = None
        for heard in [*between(container, sound, start, end), None]:
            if first is None and heard is not None:
                first = max(0, round((heard.time - start) * rate))
            for frame in resampler.resample(heard) if first is not None else []:
                frame.pts, first = first, first + frame.samples
                yield frame


def between(
    container: av.container.InputContainer, sound: av.AudioStream, start: float, end: float
) -> Iterator[av.AudioFrame]:
    """The sound frames of these seconds, up to the first that cannot be decoded."""
    try:
        for frame in container.decode(sound):
            if frame.time is None or frame.time >= end:
                return
            if frame.time + frame.samples / frame.sample_rate > start:
                yield frame
    except av.FFmpegError:
        return


def read_squares(path: Path, times: Sequence[float], *, size: int) -> Iterator[UInt8[np.ndarray, "H W 3"] | None]:
    """For each time (seconds, ascending) the frame shown, scaled as Pillow does, and center-cropped; None if it is the
    same frame as at the previous time."""
    with opened(path) as (container, stream):
        graph, last = None, None
        for frame in shown_at(path, container, stream, times):
            if last is not None and frame.pts == last:
                yield None
                continue
            graph, last = graph or filter_graph(stream, frame, pillow_square(size)), frame.pts
            graph.vpush(frame)
            yield from pulled(graph)


def shown_at(
    path: Path, container: av.container.InputContainer, stream: av.VideoStream, times: Iterable[float]
) -> Iterator[av.VideoFrame]:
    """The frame shown at each time (seconds from the container's start); after the end, the last frame.

    Decoding continues from its current position, or seeks to the last key frame before the time if that is later.
    """
    start = (container.start_time or 0) / av.time_base
    frames: Iterator[av.VideoFrame] = iter(())
    shown: av.VideoFrame | None = None
    ahead: av.VideoFrame | None = None
    for time in times:
        # The tolerance keeps rounding errors from selecting the frame before when `time` is a frame's exact time.
        wanted = math.floor((start + max(0.0, time)) / stream.time_base + 1e-6)
        if shown is None or wanted < shown.pts or (ahead is not None and key_frame_before(stream, wanted) > ahead.pts):
            frames = decoded_from(container, stream, wanted)
            shown = ahead = next(frames, None)
        while ahead is not None and ahead.pts <= wanted:
            shown, ahead = ahead, next(frames, None)
        if shown is None:
            raise VideoError(f"{path} has no frame at {time:g} s")
        yield shown


def decoded_from(
    container: av.container.InputContainer, stream: av.VideoStream, wanted: int
) -> Iterator[av.VideoFrame]:
    """The frames that start at the last key frame before this timestamp."""
    container.seek(wanted, stream=stream, backward=True)
    for frame in container.decode(stream):
        if frame.pts is None:
            raise untimed(Path(container.name))
        yield frame


def key_frame_before(stream: av.VideoStream, wanted: int) -> int:
    """The timestamp of the last key frame before `wanted`, from the container's index; `wanted` if it is unknown."""
    entries: Any = stream.index_entries
    number = entries.search_timestamp(wanted)
    return entries[number].timestamp if number >= 0 else wanted
