"""Video files and their ids in a collection: what an index run finds, what has moved, and what is gone."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from mmpt_plugin.files import absolute, file_sha256, files_below
from mmpt_plugin.search.stores.store import StoredVideo
from mmpt_plugin.terminal import one_line
from mmpt_plugin.video.store import left_out_lines, why_not


@dataclass
class IndexReport:
    """What `Collection.index` did; `str()` formats it for the terminal."""

    added: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)
    """Videos whose file has another size or time than when they were indexed."""
    moved: dict[str, str] = field(default_factory=dict)
    """New id -> old id of files that are found elsewhere with the same content."""
    unchanged: int = 0
    missing: list[str] = field(default_factory=list)
    """Videos whose file is no longer there; they stay in the collection unless they are removed."""
    removed: list[str] = field(default_factory=list)
    """Missing videos that were removed: on request, or because another file has the same content."""
    failed: dict[str, str] = field(default_factory=dict)
    """Video file -> why it can't be indexed; the next run tries again."""
    left_out: dict[str, str] = field(default_factory=dict)
    """File of a folder -> why it is not a video."""

    def __str__(self) -> str:
        counts = {
            "added": self.added, "changed": self.changed, "moved": self.moved, "removed": self.removed,
            "missing": self.missing, "failed": self.failed,
        }  # fmt: skip
        some = [f"{len(videos)} {name}" for name, videos in counts.items() if videos]
        lines = [f"{', '.join([*some, f'{self.unchanged} unchanged'])}"]
        lines += [f"missing: {one_line(video)}" for video in self.missing]
        lines += [f"failed: {one_line(reason)}" for reason in self.failed.values()]
        return "\n".join([*lines, *left_out_lines(self.left_out)])


@dataclass(frozen=True)
class Found:
    """A video file on disk."""

    path: Path
    root: str
    size: int
    modified: int

    def is_unchanged(self, known: StoredVideo | None) -> bool:
        """Whether the file is as it was when it was indexed."""
        return known is not None and (known.size, known.modified) == (self.size, self.modified)


def find(paths: Sequence[Path], known: Mapping[str, StoredVideo], report: IndexReport) -> dict[str, Found]:
    """The video files of `paths` by id; files that can't be indexed go to the report."""
    roots = roots_of(known)
    found: dict[str, Found] = {}
    for path in paths:
        if not path.exists():
            raise ValueError(f"no video or folder at {path}")
        folder = path if path.is_dir() else path.parent
        for file in files_below(path) if path.is_dir() else [path]:
            if path.is_dir() and (reason := outside(file, folder) or why_not(file)):
                report.left_out[str(file)] = reason
                continue
            if not is_unicode(file):
                shown = os.fsencode(file).decode(errors="replace")
                report.failed[shown] = f"{shown}: rename it, its name is not UTF-8"
                continue
            try:
                about = file.stat()
            except OSError as error:
                report.failed[str(file)] = f"{file}: {error.strerror}"
                continue
            name = root_name(file, folder, roots)
            below = file.relative_to(roots[name]).as_posix()
            found[f"{name}/{below}"] = Found(file, roots[name], about.st_size, about.st_mtime_ns)
    if not found and not known:
        where = ", ".join(map(str, paths[:3]))
        why = f"; left out: {next(iter(report.left_out.values()))}" if report.left_out else ""
        raise ValueError(f"no videos in {where}{why}")
    return found


def gone_from(paths: Sequence[Path], found: Mapping[str, Found], known: Mapping[str, StoredVideo]) -> set[str]:
    """The known videos at or below these paths whose file is no longer there."""
    return {
        video
        for video, about in known.items()
        if video not in found and is_below(about.path(video), paths) and not about.path(video).is_file()
    }


def moved_to(found: Mapping[str, Found], known: Mapping[str, StoredVideo]) -> dict[str, str]:
    """New id -> old id of the files that are not known, but have the content of a known file that is gone."""
    new = {video: file for video, file in found.items() if video not in known}
    lost: dict[int, list[str]] = {}
    for video, about in known.items():
        if new and not about.path(video).is_file():
            lost.setdefault(about.size, []).append(video)
    moved: dict[str, str] = {}
    for video, file in new.items():
        if same_size := lost.get(file.size):
            content = file_sha256(file.path)
            moved.update((video, old) for old in same_size if known[old].content == content)
    return moved


def roots_of(videos: Mapping[str, StoredVideo]) -> dict[str, str]:
    """The indexed folders by their names in ids."""
    return {root_of(video): about.root for video, about in videos.items()}


def root_of(video: str) -> str:
    """The name of the indexed folder in a video's id."""
    return video.partition("/")[0]


def outside(file: Path, folder: Path) -> str | None:
    """Why a file below a folder is not followed: a link leads out of the folder. None for other files."""
    return None if file.resolve().is_relative_to(folder.resolve()) else f"{file} is a link out of {folder}"


def is_unicode(path: Path) -> bool:
    """Whether a path is valid UTF-8, as the strings of stores are; a file system allows any bytes."""
    try:
        str(path).encode()
    except UnicodeEncodeError:
        return False
    return True


def is_below(path: Path, roots: Sequence[Path]) -> bool:
    """Whether a path is one of the roots or below one."""
    return any(path.is_relative_to(root) for root in roots)


def root_name(file: Path, root: Path, roots: dict[str, str]) -> str:
    """The name, in ids, of the folder that a file was indexed under; a new one is added to `roots` (name -> folder).

    A folder within an indexed folder is part of that one.
    """
    for name, folder in roots.items():
        if file.is_relative_to(folder):
            return name
    name, number = root.name or "root", 2
    while name in roots:
        name, number = f"{root.name or 'root'}-{number}", number + 1
    roots[name] = str(root)
    return name


def prefix_of(video: str, about: StoredVideo, folder: str) -> str | None:
    """The beginning of a video's id that is in the folder, which is below a root, an id's beginning, or a path."""
    name, _, below = video.partition("/")
    wanted = f"{folder.rstrip('/')}/"
    if below.startswith(wanted):
        return f"{name}/{wanted}"
    if video.startswith(wanted):
        return wanted
    path, root = (f"{str(each).rstrip('/')}/" for each in (absolute(Path(folder).expanduser()), about.root))
    if str(about.path(video)).startswith(path):
        return f"{name}/{path.removeprefix(root)}" if path.startswith(root) else f"{name}/"
    return None
