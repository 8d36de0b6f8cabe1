"""Records of the video file that features or cached frames were made from.

They prevent features from being computed twice, or overwritten by those of another video. A record holds the path
(`source`), size and modification time of the video file, the encoder's fingerprint, and `max_seconds` if only the
beginning of the video was read. Records of older versions have no source.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mmpt_plugin.files import absolute, read_json

Origin = Mapping[str, Any]

FILE = ("bytes", "mtime_ns")


def origin(video: Path, encoder: str, *, max_seconds: int | None = None) -> dict[str, Any]:
    """The record of a file: absolute path, size, modification time, the encoder's fingerprint and any `max_seconds`."""
    stat = video.stat()
    made_from = {"source": str(absolute(video)), "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns}
    return made_from | {"encoder": encoder} | ({} if max_seconds is None else {"max_seconds": max_seconds})


def read_origin(about: Path) -> Origin | None:
    """The record in a file; None if there is no readable record."""
    try:
        record = read_json(about)
    except (ValueError, OSError):
        return None
    return record if isinstance(record, dict) and {*FILE, "encoder"} <= record.keys() else None


def is_equal(there: Origin, now: Origin) -> bool:
    """Whether both are of the same unchanged file, which may have moved, and of the same encoder."""
    return all(there[key] == now[key] for key in (*FILE, "encoder"))


def same_video(there: Origin, now: Origin) -> bool:
    """Whether both have the same path, possibly with a new file, or the same file, possibly moved."""
    return there.get("source") == now["source"] or all(there[key] == now[key] for key in FILE)


def check_replaceable(there: Origin | None, now: Origin, where: Path | str) -> None:
    """ValueError if the output at `where` is, or may be, of another video."""
    if there is not None and ("source" in there or is_equal(there, now)):
        if same_video(there, now):
            return
        made_from = f"was made from {there['source']}"
    else:
        made_from = "already exists, without a record of the file it was made from"
    raise ValueError(
        f"{now['source']}: {where} {made_from}: choose another --out, or extract both in one run from their common "
        "folder, or delete it"
    )
