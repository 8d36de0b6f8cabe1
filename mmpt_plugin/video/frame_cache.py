"""Cached frames: JPEGs of many videos in a few memory-mapped shards, with an index and checksums.

A shard is one safetensors file of V videos, K frames and N bytes. Frame k of a video is the frame shown at the middle
of its k-th interval of 1 / fps seconds (`video.decode.read_all`), and is used for the whole interval.
"""

import io
import json
import math
import zlib
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Int
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save_file

from mmpt_plugin.errors import require, shortened
from mmpt_plugin.files import atomic_write, offsets, parse_json, without_suffix
from mmpt_plugin.video.origin import Origin, check_replaceable, is_equal, origin, same_video
from mmpt_plugin.video.sparse_frames import Picture, Videos

SHARDS = "frames-*.safetensors"
VERSION = "1"
VIDEOS_PER_SHARD = 4096
BYTES_PER_SHARD = 1 << 29  # the most that a killed run loses

LAYOUT = {
    "jpegs": "uint8",
    "frame_offsets": "int64",  # K + 1: frame k is jpegs[frame_offsets[k] : frame_offsets[k + 1]]
    "frame_crc32": "uint32",
    "video_offsets": "int64",  # V + 1: frames of video i are video_offsets[i] to video_offsets[i + 1]
}


@dataclass(frozen=True, kw_only=True)
class FrameSettings:
    """How `mmpt cache-frames` stores frames."""

    size: int = 224
    """Pixels of the square frames: the shorter side is scaled to it, then the center is cropped."""
    fps: int = 1
    """Frames stored per second."""
    quality: int = 90
    """JPEG quality, 1 to 95."""

    def __post_init__(self) -> None:
        if self.size < 1 or self.fps < 1 or not 1 <= self.quality <= 95:
            raise ValueError(
                "size and fps of cached frames must be at least 1 and quality 1 to 95, "
                f"got {self.size}, {self.fps} and {self.quality}"
            )

    @property
    def fingerprint(self) -> str:
        """The settings as JSON, stored with the frames to detect that a folder has other settings."""
        return json.dumps({"encoder": "frames", "scaling": "pillow", **asdict(self)})


@dataclass(frozen=True)
class EncodedVideo:
    """The encoded frames of one video, before they are written to a shard."""

    video_id: str
    duration: float
    """Seconds, as stated by the container."""
    made_from: dict[str, Any]
    jpegs: list[bytes]


def to_jpeg(picture: Picture, *, quality: int) -> bytes:
    """Encode an RGB picture; `quality` is Pillow's, 1 to 95."""
    from PIL import Image  # Pillow is an extra

    file = io.BytesIO()
    Image.fromarray(picture).save(file, "JPEG", quality=quality)
    return file.getvalue()


def from_jpeg(content: bytes, *, size: int, where: str) -> Picture:
    """Decode to an RGB picture; ValueError, with the location `where`, unless it is a JPEG of size x size pixels.

    A JPEG of a few kilobytes may claim a picture of gigabytes, so the size is compared before it is decoded.
    """
    from PIL import Image

    try:
        picture = Image.open(io.BytesIO(content), formats=["JPEG"])
        if picture.size == (size, size):
            return np.asarray(picture.convert("RGB"))
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise ValueError(f"{where} is not a JPEG: {error}") from error
    raise ValueError(f"{where} has {picture.width} x {picture.height} pixels, expected {size} x {size}")


class FrameShards:
    """Writes videos to new shards in a folder, which may already hold shards with the same settings."""

    def __init__(self, out: Path, settings: FrameSettings) -> None:
        self.out = out
        self.settings = settings
        self.pending: list[EncodedVideo] = []
        self.num_bytes = 0
        there = FrameCache(out) if any(out.glob(SHARDS)) else None
        if there is not None and there.encoder != settings.fingerprint:
            raise ValueError(f"{out} holds frames with other settings, {there.encoder}: choose another folder")
        self.made_from: dict[str, Origin] = {} if there is None else there.made_from

    def is_finished(self, video_id: str, path: Path) -> bool:
        """Whether frames of this file are there; ValueError if the frames of another file are."""
        now = origin(path, self.settings.fingerprint)
        there = self.made_from.get(video_id)
        if there is None:
            return False
        check_replaceable(there, now, f"video '{video_id}' in {self.out}")
        return is_equal(there, now)

    def add(self, video: EncodedVideo) -> int:
        """Add a video and return its duration in seconds; a full shard is written."""
        self.pending.append(video)
        self.num_bytes += sum(map(len, video.jpegs))
        if len(self.pending) == VIDEOS_PER_SHARD or self.num_bytes >= BYTES_PER_SHARD:
            self.flush()
        return math.ceil(len(video.jpegs) / self.settings.fps)

    def flush(self) -> None:
        """Write the pending videos as one shard."""
        videos, self.pending, self.num_bytes = self.pending, [], 0
        if not videos:
            return
        jpegs = [jpeg for video in videos for jpeg in video.jpegs]
        arrays = {
            "jpegs": np.frombuffer(b"".join(jpegs), dtype=np.uint8),
            "frame_offsets": offsets([len(jpeg) for jpeg in jpegs]),
            "frame_crc32": np.array([zlib.crc32(jpeg) for jpeg in jpegs], dtype=np.uint32),
            "video_offsets": offsets([len(video.jpegs) for video in videos]),
        }
        index = [[video.video_id, video.duration, video.made_from] for video in videos]
        about = {"version": VERSION, "encoder": self.settings.fingerprint, "videos": json.dumps(index)}
        # Two runs may write to the same folder: the checksum of the frames makes their file names differ.
        number = len(list(self.out.glob(SHARDS)))
        path = self.out / f"frames-{number:05d}-{zlib.crc32(arrays['frame_crc32'].tobytes()):08x}.safetensors"
        atomic_write(path, lambda temporary: save_file(arrays, temporary, metadata=about))


class FrameCache:
    """The videos in a folder of shards; reads only the JPEGs requested, and verifies the checksum of each.

    If a video is in two shards, the later one is used; they must have the same source, otherwise ValueError.
    A pickled copy opens the files again in the other process.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.made_from: dict[str, Origin] = {}
        self._arrays: list[dict[str, np.ndarray]] = []
        self._durations: dict[str, float] = {}
        self._places: dict[str, tuple[int, int, int]] = {}
        encoders: dict[str, Path] = {}
        self._paths = sorted(folder.glob(SHARDS))
        for number, path in enumerate(self._paths):
            arrays, about = open_frames(path)
            encoders.setdefault(about["encoder"], path)
            frames = arrays["video_offsets"].tolist()
            for i, (video_id, duration, made_from) in enumerate(json.loads(about["videos"])):
                self._check_source(video_id, made_from)
                self._places[video_id] = (number, frames[i], frames[i + 1])
                self._durations[video_id], self.made_from[video_id] = duration, made_from
            self._arrays.append(arrays)
        if len(encoders) != 1:
            files = ", ".join(map(str, encoders.values()))
            raise ValueError(f"{folder} holds frames with {len(encoders)} different settings: {files}")
        (self.encoder,) = encoders
        settings = json.loads(self.encoder)
        self.fps, self.size = settings["fps"], settings["size"]

    def _check_source(self, video_id: str, made_from: Origin) -> None:
        there = self.made_from.get(video_id, made_from)
        if "source" in there and "source" in made_from and not same_video(there, made_from):
            raise ValueError(
                f"{self.folder} holds frames of two videos '{video_id}', of {there['source']} and "
                f"{made_from['source']}: cache both in one run from their common folder"
            )

    def __contains__(self, video_id: str) -> bool:
        return self._name(video_id) in self._places

    def ids(self) -> list[str]:
        """See `Videos.ids`."""
        return sorted(self._places)

    def duration(self, video_id: str) -> float:
        """See `Videos.duration`."""
        return self._durations[self._name(video_id)]

    def frame_rate(self, video_id: str) -> float:
        """See `Videos.frame_rate`; that of the cache."""
        return float(self.fps)

    def frames_at(self, video_id: str, times: Sequence[float], *, size: int) -> Iterator[Picture | None]:
        """See `Videos.frames_at`; ValueError if `size` differs from that of the cached frames."""
        if size != self.size:
            raise ValueError(f"{self.folder} holds frames of {self.size} pixels, but frames.size is {size}")
        shard, first, last = self._places[self._name(video_id)]
        before = None
        for time in times:
            frame = min(first + int(time * self.fps + 1e-6), last - 1)
            where = f"frame {frame} of {self._paths[shard]}"
            yield None if frame == before else from_jpeg(self._jpeg(shard, frame), size=size, where=where)
            before = frame

    def _jpeg(self, shard: int, frame: int) -> bytes:
        arrays = self._arrays[shard]
        begin, end = arrays["frame_offsets"][frame : frame + 2]
        content = arrays["jpegs"][begin:end].tobytes()
        if zlib.crc32(content) != arrays["frame_crc32"][frame]:
            raise ValueError(
                f"frame {frame} of {self._paths[shard]} is damaged: delete the file and cache its videos again"
            )
        return content

    def content(self, video_id: str) -> bytes:
        """See `Videos.content`; it consists of the checksums of the video's frames."""
        shard, first, last = self._places[self._name(video_id)]
        return self._arrays[shard]["frame_crc32"][first:last].tobytes()

    def _name(self, video_id: str) -> str:
        return video_id if video_id in self._places else without_suffix(video_id)  # an id may be a file name

    def __reduce__(self) -> tuple[Any, ...]:
        return FrameCache, (self.folder,)


def open_videos(folder: Path) -> Videos:
    """Open a folder of cached frames or, if it has none, a folder of video files."""
    from mmpt_plugin.video.store import VideoFolder  # PyAV is an extra

    return FrameCache(folder) if any(folder.glob(SHARDS)) else VideoFolder(folder)


def open_frames(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """A shard's memory-mapped arrays and its metadata; ValueError, naming the file, if it is damaged."""
    try:
        # Read as tensors, because safetensors copies the data for NumPy arrays.
        with safe_open(path, framework="pt") as file:
            about: dict[str, str] = file.metadata() or {}
            arrays: dict[str, np.ndarray] = {name: file.get_tensor(name).numpy() for name in LAYOUT}
    except (SafetensorError, OSError) as error:
        raise ValueError(f"frames {path} are damaged: {error}") from error
    if about.get("version") != VERSION:
        raise ValueError(f"frames {path} have version {about.get('version')}, this program reads version {VERSION}")
    for name, dtype in LAYOUT.items():
        if arrays[name].dtype != dtype or arrays[name].ndim != 1:
            raise ValueError(f"frames {path} are damaged: {name} are {arrays[name].dtype} {arrays[name].shape}")
    check_about(about, path)
    num_videos, num_frames = len(json.loads(about["videos"])), len(arrays["frame_crc32"])
    check_bounds(arrays["video_offsets"], num_videos, num_frames, path)
    check_bounds(arrays["frame_offsets"], num_frames, len(arrays["jpegs"]), path)
    return arrays, about


def check_about(about: dict[str, str], path: Path) -> None:
    """ValueError unless the metadata list the videos, (id, seconds, origin) of each, and have the settings as JSON."""
    where = f"frames {path} are damaged"
    settings, videos = (parse_json(about.get(key, ""), where, names_of_files=True) for key in ("encoder", "videos"))
    for key in ("fps", "size"):
        if require(settings, key, int, where) < 1:
            raise ValueError(f"{where}: '{key}' must be at least 1, got {settings[key]}")
    if not isinstance(videos, list):
        raise ValueError(f"{where}: expected a list of videos, got {shortened(videos)}")
    for video in videos:
        kinds = [type(part) for part in video] if isinstance(video, list) else []
        if kinds not in ([str, float, dict], [str, int, dict]):
            raise ValueError(f"{where}: a video must be its id, seconds and origin, got {shortened(video)}")


def check_bounds(ends: Int[np.ndarray, " _"], number: int, total: int, path: Path) -> None:
    """ValueError unless `ends` splits `total` items into `number` consecutive parts, none of them empty."""
    if len(ends) != number + 1 or ends[0] != 0 or ends[-1] != total or (np.diff(ends) <= 0).any():
        raise ValueError(f"frames {path} are damaged: their index does not match their content")
