"""Find the video files of a folder or a list, and assign their ids."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import overload

import numpy as np
from jaxtyping import UInt8

from mmpt_plugin.files import absolute, file_sha256, files_below, read_list, without_suffix
from mmpt_plugin.terminal import one_line
from mmpt_plugin.video.decode import SUFFIXES, VideoError, VideoInfo, check_moving, read_squares, timed

logger = logging.getLogger(__name__)

OUR_SUFFIXES = (".npy", ".json", ".jsonl", ".safetensors", ".vtt", ".srt")  # known not to be videos
NAMED = 10  # number of skipped files that a report lists


@dataclass(frozen=True)
class VideoList(Sequence[Path]):
    """Video files and their ids. A slice of the list keeps the ids of the full list."""

    files: tuple[Path, ...]
    ids: tuple[str, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)
    """Skipped file of the same folder -> why it is not a video."""

    def __len__(self) -> int:
        return len(self.files)

    @overload
    def __getitem__(self, i: int) -> Path: ...
    @overload
    def __getitem__(self, i: slice) -> "VideoList": ...
    def __getitem__(self, i: int | slice) -> "Path | VideoList":
        return VideoList(self.files[i], self.ids[i], self.left_out) if isinstance(i, slice) else self.files[i]

    def items(self) -> Iterator[tuple[str, Path]]:
        """Pairs of video id and file."""
        return zip(self.ids, self.files, strict=True)


def list_videos(videos: Sequence[Path], *, out: Path | None = None) -> VideoList:
    """The videos in `videos`: video files, folders, or one .txt file that lists such paths.

    For folders see `find_videos`; the folder `out` is skipped. A path in a list is used as it is or, if that file does
    not exist, relative to the list. Duplicate files count once.
    """
    if isinstance(videos, VideoList):
        return videos
    where = ", ".join(map(str, videos[:3]))
    if len(videos) == 1 and videos[0].suffix.lower() == ".txt":
        videos = [listed(Path(line), videos[0].parent) for line in read_list(videos[0])]
    found = gathered(videos, out)
    if not found:
        why = f"; {left_out_summary(found.left_out)}" if found.left_out else ""
        raise ValueError(f"no videos in {where}{why}")
    return found


def find_videos(folder: Path) -> VideoList:
    """The videos in a folder and its subfolders, with their ids. All commands use this function.

    A file with a video suffix is a video; if it cannot be decoded, reading it fails. A file with an unknown suffix is a
    video if it can be decoded. The id is the file name without suffix. If several files have that name, it is the path
    below the folder without suffix, such as `a/clip` and `b/clip`. If only the suffix differs, the ids keep it.
    """
    if not folder.is_dir():
        raise ValueError(f"no folder of videos at {folder}")
    return gathered([folder], None)


def gathered(paths: Sequence[Path], out: Path | None) -> VideoList:
    """The videos among files and below folders, each file once; `out` is not searched.

    Files of a folder that are not videos are left out. A file that is given by its own path is never left out.
    """
    files: dict[Path, Path] = {}
    left_out: dict[str, str] = {}
    for path in paths:
        folder = path.is_dir()
        for file in files_below(path, skip=out) if folder else [path]:
            if folder and (reason := why_not(file)):
                left_out[str(file)] = reason
            else:
                files.setdefault(absolute(file), file)
    if files and left_out:
        logger.info(f"{len(files)} videos in {', '.join(map(str, paths[:3]))}; {left_out_summary(left_out)}")
    roots = [absolute(path) if path.is_dir() else absolute(path).parent for path in paths]
    root = Path(os.path.commonpath(roots)) if roots else Path()
    return VideoList(tuple(files.values()), ids_of(list(files), root), left_out)


def listed(path: Path, folder: Path) -> Path:
    """A path from a list: relative to the working directory or, if it exists only there, to the list's `folder`."""
    return path if path.is_absolute() or path.exists() or not (folder / path).exists() else folder / path


def why_not(path: Path) -> str | None:
    """Why a file of a folder is not a video; None if it is one."""
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return None
    if suffix in OUR_SUFFIXES:
        return f"{path} is a {suffix} file, not a video"
    if path.exists() and not path.is_file():
        return f"{path} is not a regular file"  # opening a pipe would block
    try:
        check_moving(path)
    except ValueError as error:  # also for a name that is not UTF-8
        # A file without read permission may be a video: it fails later, and is counted.
        return None if isinstance(error.__cause__, PermissionError) else str(error)
    return None


def left_out_lines(left_out: Mapping[str, str]) -> list[str]:
    """One line for each of the first skipped files, a line with the number of the others, and one for subtitles and
    files that we write."""
    ours = Counter(suffix for file in left_out if (suffix := Path(file).suffix.lower()) in OUR_SUFFIXES)
    reasons = [reason for file, reason in left_out.items() if Path(file).suffix.lower() not in OUR_SUFFIXES]
    lines = [f"left out: {one_line(reason)}" for reason in reasons[:NAMED]]
    if more := len(reasons) - len(lines):
        lines.append(f"left out: {more} more that are not videos")
    if ours:
        lines.append(f"left out: {', '.join(f'{number} {suffix}' for suffix, number in sorted(ours.items()))}")
    return lines


def left_out_summary(left_out: Mapping[str, str]) -> str:
    """The number of skipped files and the first reason, for a log line."""
    return f"{len(left_out)} left out, such as: {next(iter(left_out.values()))}"


def ids_of(files: Sequence[Path], root: Path) -> tuple[str, ...]:
    """A unique id for each of these files below `root`.

    It is the file name without suffix, else the path without suffix, else the path below `root`.
    """
    below = [path.relative_to(root).as_posix() for path in files]
    possible = [
        (without_suffix(path.name), without_suffix(name), name) for path, name in zip(files, below, strict=True)
    ]
    number = [Counter(level) for level in zip(*possible, strict=True)]
    return tuple(
        next(choice for choice, counted in zip(choices, number, strict=True) if counted[choice] == 1)
        for choices in possible
    )


class VideoFolder:
    """The videos of a folder by id, see `find_videos`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.files = dict(find_videos(folder).items())
        self._info: dict[str, VideoInfo] = {}

    def __contains__(self, video_id: str) -> bool:
        """Whether the file exists and can be opened; a file that cannot be opened is logged."""
        if self._name(video_id) not in self.files:
            return False
        try:
            self.duration(video_id)
            return True
        except VideoError as error:
            logger.warning(str(error))
            return False

    def ids(self) -> list[str]:
        """See `Videos.ids`."""
        return sorted(self.files)

    def duration(self, video_id: str) -> float:
        """See `Videos.duration`; VideoError if the file states none or cannot be opened."""
        return self._timed(video_id).duration

    def frame_rate(self, video_id: str) -> float:
        """See `Videos.frame_rate`."""
        return self._timed(video_id).fps

    def _timed(self, video_id: str) -> VideoInfo:
        if video_id not in self._info:
            self._info[video_id] = timed(self.file(video_id))
        return self._info[video_id]

    def frames_at(
        self, video_id: str, times: Sequence[float], *, size: int
    ) -> Iterator[UInt8[np.ndarray, "H W 3"] | None]:
        """See `Videos.frames_at`."""
        return read_squares(self.file(video_id), times, size=size)

    def content(self, video_id: str) -> bytes:
        """See `Videos.content`; it is the SHA-256 of the file."""
        return bytes.fromhex(file_sha256(self.file(video_id)))

    def file(self, video_id: str) -> Path:
        """The path of a video; ValueError if the folder does not have it."""
        path = self.files.get(self._name(video_id))
        if path is None:
            raise ValueError(f"no video '{video_id}' in {self.folder}")
        return path

    def _name(self, video_id: str) -> str:
        return video_id if video_id in self.files else without_suffix(video_id)  # an id may be a file name
