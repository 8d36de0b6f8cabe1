"""A small collection to serve: its videos, in formats that browsers play and in others, and its model."""

import shutil
from pathlib import Path

import av
import numpy as np
import torch

from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.search import Collection
from mmpt_plugin.tokenizer import load_tokenizer
from tests.conftest import TINY_ENCODER, TINY_MODEL, Kitchen

SCRIPT = "<script>alert(1)<script>.mp4"
RATE = 48_000
HAS_X265 = "libx265" in av.codecs_available


def write(
    path: Path,
    codec: str,
    *,
    seconds: int = 10,
    fps: int = 10,
    size: tuple[int, int] = (96, 64),
    silent: float = 0.0,
    sound: str | None = "aac",
) -> Path:
    """A video that in second t has brightness 20 * t, and a tone from second `silent` on."""
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"x265-params": "log-level=none"} if codec == "libx265" else {"g": "25"}
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=fps, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        tone = container.add_stream(sound, rate=RATE, layout="stereo") if sound else None
        for number in range(fps * seconds):
            picture = np.full((*size[::-1], 3), 20 * (number // fps), np.uint8)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode())
        if tone is not None:
            wave = np.sin(2 * np.pi * 440 * np.arange(seconds * RATE) / RATE) * 0.5
            wave[: round(silent * RATE)] = 0
            samples = av.AudioFrame.from_ndarray(np.stack([wave, wave]).astype(np.float32), "fltp", "stereo")
            samples.sample_rate, samples.pts = RATE, 0
            frame_size = tone.codec_context.frame_size or 1152
            resampler = av.AudioResampler(tone.codec_context.format, "stereo", RATE, frame_size)
            for frame in [*resampler.resample(samples), *resampler.resample(None)]:
                container.mux(tone.encode(frame))
            container.mux(tone.encode())
    return path


def write_library(kitchen: Kitchen, root: Path) -> Path:
    """Videos/2025: one of the toy kitchen. Videos/2026: a name with HTML, and what browsers don't play."""
    (root / "2025").mkdir(parents=True)
    shutil.copy(kitchen.root / "videos" / "toy_0000.mp4", root / "2025" / "toy.mp4")
    write(root / "2026" / SCRIPT, "libx264", sound=None)
    write(root / "2026" / "old.avi", "mpeg4", sound="mp2")
    if HAS_X265:
        write(root / "2026" / "phone.mp4", "libx265")
    return root


def write_model(kitchen: Kitchen, folder: Path) -> Path:
    """A model with random weights, with its tokenizer and encoder."""
    torch.manual_seed(0)
    model = VideoCLIP(VideoCLIPConfig(**TINY_MODEL))
    model.tokenizer, model.encoder = load_tokenizer(str(kitchen.root / "tokenizer")), TINY_ENCODER
    model.save_pretrained(folder)
    return folder


def make_collection(kitchen: Kitchen, root: Path) -> Collection:
    """The indexed library."""
    collection = Collection.create(root / "c", model=write_model(kitchen, root / "model"))
    report = collection.index([write_library(kitchen, root / "Videos")])
    assert not report.failed
    return collection
