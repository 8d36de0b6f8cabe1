"""The parts of `benchmarks.gpu`: what each measures, and how much of it.

Imports are inside the functions, because each part runs in a process of its own.
"""

import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

import torch

from mmpt_plugin.errors import first_line
from mmpt_plugin.hardware import compute_device

Figures = dict[str, Any]
Measurements = Iterator[tuple[str, Figures]]

ROOT = Path(__file__).parents[1]


@dataclass(frozen=True, kw_only=True)
class Sizes:
    """How much each part does."""

    matmul: int
    """Rows and columns of the matrices that are multiplied."""
    size: str
    """Size of VideoCLIP, one of `benchmarks.towers.SIZES`."""
    pairs: int
    """Pairs of a batch."""
    repeats: int
    """Steps and forward passes of each kind."""
    dtypes: tuple[str, ...]
    """Data types of matrix products and steps."""
    compiled: tuple[str, ...]
    """Data types and ways of compiled steps."""
    backend: str
    """Backend of torch.compile."""
    video_seconds: int
    """Length of the video whose features are extracted."""
    s3d: dict[str, Any]
    """Settings of the encoder s3d."""
    clip: dict[str, Any]
    """Sizes of CLIP's vision tower; ViT-B/32 without any."""
    vectors: tuple[int, ...]
    """Numbers of vectors that are indexed."""
    queries: int
    """Queries, and candidates, that are ranked."""
    batches: int
    """Batches that the loader makes."""
    workers: tuple[int, ...]
    """Numbers of loader processes."""
    patience: float = 1.0
    """Factor of the time limits."""


ON_GPU = Sizes(
    matmul=8192, size="full", pairs=512, repeats=3, dtypes=("bfloat16", "float16", "float32"),
    compiled=("bfloat16 packed_jagged", "bfloat16 packed_padded", "float16 packed_jagged"), backend="inductor",
    video_seconds=20, s3d={}, clip={}, vectors=(100_000, 1_100_000), queries=100_000, batches=100, workers=(0, 1, 4, 8),
)  # fmt: skip
ON_CPU = Sizes(
    matmul=256, size="tiny", pairs=96, repeats=1, dtypes=("bfloat16", "float32"),
    compiled=("float32 packed_padded",), backend="eager", video_seconds=2, s3d={"size": 32, "fps": 4},
    clip={"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2},
    vectors=(2000,), queries=500, batches=4, workers=(0, 1), patience=10.0,
)  # fmt: skip


def tests(sizes: Sizes) -> Measurements:
    """The counts of `pytest -m gpu`; an error if a test fails."""
    command = [sys.executable, "-m", "pytest", "-m", "gpu and not slow", "-q", "tests/gpu"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        failed = re.findall(r"^(?:FAILED|ERROR) .*", done.stdout, re.M)
        raise RuntimeError("; ".join(failed) or (done.stdout + done.stderr).strip()[-500:].replace("\n", " "))
    yield "pytest -m gpu", counts(done.stdout)


def counts(output: str) -> Figures:
    """The counts in the last line of pytest's output, such as `1 passed, 2 skipped in 0.1s`."""
    last = output.strip().splitlines()[-1]
    return {name: int(number) for number, name in re.findall(r"(\d+) (passed|skipped|xfailed|deselected)", last)}


def matmul(sizes: Sizes) -> Measurements:
    """The rate of one large square matrix product."""
    for dtype in sizes.dtypes:
        yield attempt(dtype, matmul_rate, sizes.matmul, dtype)


def matmul_rate(width: int, dtype: str) -> Figures:
    """Floating-point operations per second of a product of two width x width matrices; the best of ten."""
    from benchmarks.step import now

    a, b = torch.randn(2, width, width, device=compute_device()).to(getattr(torch, dtype))
    times = []
    for _ in range(10):
        start = now()
        a @ b
        times.append(now() - start)
    return {"flops_per_s": 2 * width**3 / min(times)}


def step(sizes: Sizes) -> Measurements:
    """A training step by each way to compute the towers; half precision as fairseq trains it."""
    from benchmarks.towers import WAYS

    for dtype in sizes.dtypes:
        for way in WAYS:
            yield attempt(f"{dtype} {way}", one_step, sizes, way, dtype)


def compiled(sizes: Sizes) -> Measurements:
    """A training step of compiled towers without padding; to compile them may take minutes."""
    with mock.patch("torch.compile", partial(torch.compile, backend=sizes.backend)):
        for name in sizes.compiled:
            dtype, way = name.split()
            yield attempt(name, one_step, sizes, way, dtype, compile=True)


def one_step(sizes: Sizes, way: str, dtype: str, *, compile: bool = False) -> Figures:
    """`matmul_fraction` is the rate of operations on real tokens, as a fraction of `matmul_rate` in this process."""
    from benchmarks.step import measure_steps
    from benchmarks.towers import build, made_batch

    rate = matmul_rate(sizes.matmul, dtype)["flops_per_s"]
    torch.compiler.reset()
    model, forward = build(way, sizes.size, compute_device(), getattr(torch, dtype), compile=compile)
    figures = measure_steps(model, forward, made_batch(sizes.pairs, model.config), steps=sizes.repeats)
    return figures | {"matmul_fraction": figures["needed_flops_per_s"] / rate}


def forward(sizes: Sizes) -> Measurements:
    """See `benchmarks.forward`; nothing is compiled."""
    from benchmarks.forward import measure

    return measure(sizes.size, sizes.pairs, sizes.repeats, compile=False)


def extraction(sizes: Sizes) -> Measurements:
    """Features of an encoded video, with random weights: end to end, decoding alone, and the network alone. On a GPU,
    also decoding by its video decoder."""
    from benchmarks.decode import FPS, moving_pattern
    from mmpt_plugin.features.clip import CLIPEncoder, CLIPEncoderConfig
    from mmpt_plugin.features.s3d import S3DEncoder, S3DEncoderConfig
    from mmpt_plugin.video.write import write_video

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_video(folder / "made.mp4", moving_pattern(seconds=sizes.video_seconds), fps=FPS, num_threads=0)
        s3d = partial(S3DEncoder, S3DEncoderConfig(**sizes.s3d))
        yield attempt("s3d", extracting, s3d, folder / "made.mp4")
        save_clip(folder / "clip", sizes.clip)
        config = CLIPEncoderConfig(weights=str(folder / "clip"))
        yield attempt("clip", extracting, partial(CLIPEncoder, config), folder / "made.mp4")
        if torch.cuda.is_available():
            yield attempt("NVDEC", decoding, s3d, folder / "made.mp4", hwaccel="cuda")


def save_clip(folder: Path, vision: dict[str, Any]) -> None:
    """A CLIP with random weights."""
    from transformers import CLIPConfig, CLIPModel

    CLIPModel(CLIPConfig(vision_config=vision)).save_pretrained(str(folder))


def extracting(build: Callable[[], Any], video: Path) -> Figures:
    """Frames per second of one process; alone, the network takes the same batches as end to end."""
    from mmpt_plugin.features.extract import encode

    encoder = build()
    given: list[torch.Tensor] = []

    class Recording:  # also the warm-up
        def __getattr__(self, name: str) -> Any:
            return getattr(encoder, name)

        def __call__(self, frames: torch.Tensor) -> Any:
            given.append(frames)
            return encoder(frames)

    encode(video, Recording())
    rows, whole = clock(lambda: encode(video, encoder))
    _, network = clock(lambda: [encoder(frames).cpu() for frames in given])
    frames = len(rows) * encoder.fps
    alone = {"network_frames_per_s": frames / network, "frames": frames}
    return {"frames_per_s": frames / whole} | decoding(lambda: encoder, video) | alone


def decoding(build: Callable[[], Any], video: Path, hwaccel: str | None = None) -> Figures:
    """Frames per second of one process, decoded and resized as an encoder reads them."""
    from mmpt_plugin.features.extract import Decoded

    decoded = Decoded(video, build(), max_seconds=None, hwaccel=hwaccel)
    frames = decoded.encoder.fps * sum(1 for _ in decoded)
    return {"decoding_frames_per_s": frames / decoded.time}


def index(sizes: Sizes) -> Measurements:
    """The 64 nearest of N / 32 random vectors among N; see `benchmarks.clusters`."""
    from benchmarks.clusters import make_vectors, our_route

    for number in sizes.vectors:
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "vectors.npy"
            make_vectors(path, number, noise=0.1)
            figures = our_route(path, "inner_product")[1]
        kept = ("index", "build_seconds", "search_seconds", "seconds")
        yield str(number), {key: figures[key] for key in kept}


def evaluate(sizes: Sizes) -> Measurements:
    """The ranks of as many queries as candidates, which are computed on the CPU; see `benchmarks.evaluate`."""
    from benchmarks.evaluate import embeddings, ranking

    text, video = embeddings(sizes.queries)
    yield str(sizes.queries), {"seconds": clock(lambda: ranking(text, video))[1]}


def loader(sizes: Sizes) -> Measurements:
    """See `benchmarks.loader`."""
    from benchmarks.loader import measure

    figures = measure(sizes.batches, sizes.workers)
    ends = figures.pop("end_to_end")
    yield "one process", figures
    for workers, line in ends.items():
        yield f"{workers} workers", line


def attempt(name: str, measure: Callable[..., Figures], *arguments: Any, **options: Any) -> tuple[str, Figures]:
    """A measurement that may fail without ending its part."""
    try:
        return name, measure(*arguments, **options)
    except Exception as error:  # torch and its compiler raise many types
        return name, {"failed": f"{type(error).__name__}: {first_line(error)}"}


def clock(work: Callable[[], Any]) -> tuple[Any, float]:
    start = time.perf_counter()
    result = work()
    return result, time.perf_counter() - start
