"""What a browser shows of a moment: a strip of frames, and an excerpt of a file that browsers can't play."""

import hashlib
import io
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageFilter, ImageOps

from mmpt_plugin.video.decode import Formats, VideoError, formats, read_frames
from mmpt_plugin.video.write import write_excerpt

STRIP_FRAMES = 4
CELL = (312, 208)  # pixels, width and height of a frame of a strip
CROPPED = (4 / 3, 16 / 9)  # frames of these ratios fill a cell; others get a blurred border
EXCERPTS_BYTES = 2 << 30  # all excerpts together
EXCERPT_SECONDS = 60.0  # longest excerpt

MP4_CODECS = ({"h264", "av1", "vp9"}, {None, "aac", "mp3", "opus", "flac"})
WEBM_CODECS = ({"h264", "av1", "vp8", "vp9"}, {None, "opus", "vorbis", "aac", "mp3", "flac"})
PIXELS = {"yuv420p", "yuvj420p"}


def media_type(made_of: Formats) -> str | None:
    """The media type under which browsers play such a file; None if they don't.

    Matroska with the codecs of WebM or with H.264 counts as playable: Chromium and Firefox play it.
    """
    names = made_of.container.split(",")
    name = "video/mp4" if "mp4" in names else "video/webm" if "webm" in names else None
    videos, sounds = MP4_CODECS if name == "video/mp4" else WEBM_CODECS
    return name if made_of.video in videos and made_of.audio in sounds and made_of.pixels in PIXELS else None


def played_as(path: Path) -> str | None:
    """`media_type` of a file; VideoError if it cannot be opened."""
    return media_type(formats(path))


def strip(path: Path, start: float, end: float) -> bytes:
    """Frames spread evenly over a moment, side by side, as JPEG: STRIP_FRAMES cells of CELL pixels."""
    times = [start + (end - start) * (i + 0.5) / STRIP_FRAMES for i in range(STRIP_FRAMES)]
    pictures = [Image.fromarray(frame) for frame in read_frames(path, times, height=CELL[1])]
    if not pictures:
        raise VideoError(f"{path} has no frame at {start:g} s")
    return jpeg(side_by_side([cell(picture) for picture in pictures]))


def cell(picture: Image.Image) -> Image.Image:
    """A picture of CELL pixels: cropped a little, or with a blurred border if much would be lost."""
    if CROPPED[0] - 0.01 <= picture.width / picture.height <= CROPPED[1] + 0.01:
        return ImageOps.fit(picture, CELL)
    filled = ImageOps.fit(picture, CELL).filter(ImageFilter.GaussianBlur(16)).point(lambda value: value * 0.6)
    inner = ImageOps.contain(picture, CELL)
    filled.paste(inner, ((CELL[0] - inner.width) // 2, (CELL[1] - inner.height) // 2))
    return filled


def side_by_side(pictures: Sequence[Image.Image]) -> Image.Image:
    """Pictures of one size in a row."""
    width, height = pictures[0].size
    row = Image.new("RGB", (width * len(pictures), height))
    for number, picture in enumerate(pictures):
        row.paste(picture, (number * width, 0))
    return row


def jpeg(picture: Image.Image) -> bytes:
    """The picture as JPEG."""
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=80)
    return buffer.getvalue()


class Excerpts:
    """Excerpts of videos in a temporary folder of limited size. One thread at a time may use it."""

    def __init__(self, *, limit: int = EXCERPTS_BYTES) -> None:
        self.limit = limit
        """Bytes of all excerpts; the least recently used ones are deleted."""
        self.folder = Path(tempfile.mkdtemp(prefix="mmpt_serve_"))
        self._sizes: dict[Path, int] = {}  # in order of use

    def file(self, path: Path, start: float, end: float) -> Path:
        """An excerpt that all browsers play, at most EXCERPT_SECONDS long; VideoError if there is none."""
        end = min(end, start + EXCERPT_SECONDS)
        if not 0 <= start < end:
            raise VideoError(f"{path} has no part from {start:g} to {end:g} s")
        about = path.stat()
        key = repr((str(path), about.st_size, about.st_mtime_ns, start, end))
        file = self.folder / f"{hashlib.sha256(key.encode()).hexdigest()}.mp4"
        if file not in self._sizes:
            write_excerpt(file, path, start, end)
        self._sizes[file] = self._sizes.pop(file, file.stat().st_size)  # to the end of the order
        self._trim()
        return file

    def close(self) -> None:
        """Delete the folder."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _trim(self) -> None:
        """Delete the least recently used excerpts above the limit, but not the newest."""
        while sum(self._sizes.values()) > self.limit and len(self._sizes) > 1:
            oldest = next(iter(self._sizes))
            oldest.unlink()
            del self._sizes[oldest]
