"""The cases of `benchmarks.sizes`: how the input of a size is made, and the steps that read it.

Imports are in the functions: a step's memory is that of what it imports itself.
"""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.sparse_shards import TOKENIZER, make_sparse, video_id

WORDS = 7  # of a caption

Step = Callable[[Path, int], object]


@dataclass(frozen=True)
class Case:
    """Input of several sizes, and the steps that are measured."""

    unit: str
    sizes: tuple[int, ...]
    make: Step
    """Write the input of a size to a folder; not measured."""
    steps: Mapping[str, Step]


# A long video: 1920x1080 pixels, 2 frames a second, of which extraction and the cache use one.
MINUTE, VIDEO_FPS = "minute.mp4", 2


def make_video(folder: Path, minutes: int) -> None:
    """A minute of a moving gradient, copied packet by packet."""
    import av

    from mmpt_plugin.video.write import write_video

    y, x = np.mgrid[0:1080, 0:1920].astype(np.float32)
    pictures = (
        np.stack([128 + 100 * np.sin(x / 300 + n / 9), 128 + 100 * np.cos(y / 200 - n / 7), x / 8], axis=2)
        for n in range(60 * VIDEO_FPS)
    )
    write_video(folder / MINUTE, (picture.astype(np.uint8) for picture in pictures), fps=VIDEO_FPS)
    (folder / "videos").mkdir()
    with av.open(str(folder / "videos" / "long.mp4"), "w") as written:
        stream = None
        for number in range(minutes):
            with av.open(str(folder / MINUTE)) as minute:
                source = minute.streams.video[0]
                stream = stream or written.add_stream_from_template(source)
                for packet in minute.demux(source):
                    if packet.dts is None:
                        continue
                    shift = round(60 * number / source.time_base)
                    packet.pts, packet.dts, packet.stream = packet.pts + shift, packet.dts + shift, stream
                    written.mux(packet)


def extract_video(folder: Path, minutes: int) -> None:
    from mmpt_plugin.features.extract import extract

    report = extract([folder / "videos"], folder / "features", encoder={"_name": "efficientnet_lite0"})
    assert report.seconds == 60 * minutes, report


def cache_video(folder: Path, minutes: int) -> None:
    from mmpt_plugin.video.cache_frames import cache_frames
    from mmpt_plugin.video.frame_cache import FrameSettings

    report = cache_frames([folder / "videos"], folder / "frames", settings=FrameSettings())
    assert report.seconds == 60 * minutes, report


def index_video(folder: Path, minutes: int) -> None:
    """Windows of 8 s, 4 s apart, of a tiny CLIP: the time is that of decoding."""
    from mmpt_plugin.models.clip import CLIPModelConfig
    from mmpt_plugin.models.clip_mean import CLIPMean
    from mmpt_plugin.search import Collection
    from tests.models.clip_family import TINY

    CLIPMean(CLIPModelConfig(**TINY)).save_pretrained(folder / "model")  # type: ignore[arg-type]
    collection = Collection.create(folder / "collection", model=folder / "model", window=8, hop=4)
    report = collection.index([folder / "videos"])
    assert len(report.added) == 1, report


# One video with very many captions, one a second.
def make_captions(folder: Path, captions: int) -> None:
    from mmpt_plugin.features.files import write_features

    (folder / "features").mkdir()
    write_features(folder / "features" / "long.npy", np.zeros((captions, 16), dtype=np.float16))
    make_tokenizer(folder)
    texts = list(sentences(captions))
    (folder / "vtt").mkdir()
    cues = (f"{stamp(n)}.000 --> {stamp(n)}.900\n{text}\n" for n, text in enumerate(texts))
    (folder / "vtt" / "long.vtt").write_text("WEBVTT\n\n" + "\n".join(cues))
    starts = list(range(captions))
    content = {"long": {"start": starts, "end": [start + 0.9 for start in starts], "text": texts}}
    (folder / "raw_caption.json").write_text(json.dumps(content))


def make_tokenizer(folder: Path) -> None:
    (folder / "tokenizer").mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *(f"word{n}" for n in range(995))]
    (folder / "tokenizer" / "vocab.txt").write_text("\n".join(words) + "\n")


def sentences(number: int) -> Iterator[str]:
    """Random sentences."""
    rng = np.random.default_rng(0)
    for start in range(0, number, 10_000):
        for row in rng.integers(0, 995, (min(10_000, number - start), WORDS)).tolist():
            yield " ".join(f"word{n}" for n in row)


def stamp(second: int) -> str:
    return f"{second // 3600:02}:{second // 60 % 60:02}:{second % 60:02}"


@dataclass(frozen=True)
class Sharding:
    """Write the shards of the captions in a file or folder."""

    captions: str

    def __call__(self, folder: Path, captions: int) -> None:
        from mmpt_plugin.shards.make import make_shards

        report = make_shards(
            None,
            features=folder / "features",
            captions=folder / self.captions,
            tokenizer=str(folder / "tokenizer"),
            out=folder / "shards",
        )
        assert report.captions >= captions * 0.9, report


def draw_batches(folder: Path, size: int) -> None:
    """A hundred batches of 16 pairs a video, from up to 32 videos."""
    from mmpt_plugin.batch import Cluster
    from mmpt_plugin.datasets import OverlappedClips, OverlappedClipsConfig

    config = OverlappedClipsConfig(splits={"train": str(folder / "shards")}, verify_checksums=False)
    dataset = OverlappedClips(config)
    rng = np.random.default_rng(0)
    for number in range(100):
        dataset[Cluster(0, 1, number, tuple(rng.integers(len(dataset), size=min(32, len(dataset))).tolist()))]


# Very many videos, with very little of each.
def make_ids(folder: Path, videos: int) -> None:
    from mmpt_plugin.shards.writer import ShardWriter

    make_tokenizer(folder)
    (folder / "train.txt").write_text("".join(f"{video_id(n)}\n" for n in range(videos)))
    (folder / "features").mkdir()
    with (folder / "raw_caption.json").open("w") as file:
        pieces = (f'"{video_id(n)}": {{"start": [0], "end": [1], "text": ["word1 word2"]}}' for n in range(videos))
        file.write("{")
        for number, piece in enumerate(pieces):
            file.write(f"{', ' * (number > 0)}{piece}")
        file.write("}")
    with (folder / "test.jsonl").open("w") as file:
        file.writelines(
            json.dumps({"video_id": video_id(n), "start": 0, "end": 1, "caption": "word1"}) + "\n"
            for n in range(videos)
        )
    rows, times = np.zeros((1, 4), dtype=np.float16), np.array([[0, 1]], dtype=np.float32)
    with ShardWriter(folder / "shards", feature_dim=4, encoder="made", tokenizer=TOKENIZER) as writer:
        for number in range(videos):
            writer.add(video_id(number), rows, times, [[7, 8]])


def list_videos(folder: Path, videos: int) -> None:
    from mmpt_plugin.files import read_list

    assert len(read_list(folder / "train.txt")) == videos


def shard_absent(folder: Path, videos: int) -> None:
    """All features are absent, which is said; then all but one, with `allow_missing`."""
    from mmpt_plugin.features.files import write_features
    from mmpt_plugin.files import read_list
    from mmpt_plugin.shards.make import make_shards

    places: dict[str, Any] = {"features": folder / "features", "captions": folder / "raw_caption.json"}
    places |= {"tokenizer": str(folder / "tokenizer"), "out": folder / "few"}
    ids = read_list(folder / "train.txt")
    refused = ""
    try:
        make_shards(ids, **places, allow_missing=True)
    except ValueError as error:
        refused = str(error)
    assert f"{videos} of {videos} videos are incomplete" in refused
    write_features(folder / "features" / f"{ids[-1]}.npy", np.zeros((2, 4), dtype=np.float16))
    report = make_shards(ids, **places, allow_missing=True)
    assert (report.videos, len(report.missing)) == (1, videos - 1)


def open_and_copy(folder: Path, videos: int) -> None:
    """The shards with their checksums, and the copy that a worker of the loader gets."""
    import pickle

    from mmpt_plugin.shards.format import Shards

    assert len(pickle.loads(pickle.dumps(Shards(folder / "shards")))) == videos


def draw_uniform(folder: Path, videos: int) -> None:
    from mmpt_plugin import registry

    sampler = registry.samplers.build({"_name": "uniform", "cluster_size": 32}, num_videos=videos, seed=1)
    assert sampler.clusters(1, lambda **_: np.empty(0)).size >= videos


def read_annotations(folder: Path, videos: int) -> None:
    """Annotations of as many clips, all but one without features."""
    from mmpt_plugin import registry
    from mmpt_plugin.features.files import write_features

    write_features(folder / "features" / f"{video_id(0)}.npy", np.zeros((2, 4), dtype=np.float16))
    corpus = registry.corpora.build(
        {
            "_name": "jsonl",
            "annotations": str(folder / "test.jsonl"),
            "features": str(folder / "features"),
            "tokenizer": str(folder / "tokenizer"),
            "allow_missing": True,
        }
    )
    assert len(corpus.missing_videos) >= videos - 2


# The resume of an extraction whose videos are all finished.
VIDEOS_PER_FILE = 10_000  # links to one file, of which a file system allows some ten thousand


def make_finished(folder: Path, videos: int) -> None:
    from mmpt_plugin.video.origin import origin
    from mmpt_plugin.video.write import write_video

    (folder / "videos").mkdir()
    (folder / "features").mkdir()
    write_video(folder / "one.mp4", [np.zeros((16, 16, 3), dtype=np.uint8)] * 2, fps=1)
    content = (folder / "one.mp4").read_bytes()
    row = folder / "row.npy"
    np.save(row, np.zeros((2, 48), dtype=np.float16))
    features, first, encoder = row.read_bytes(), folder, NoEncoder.fingerprint
    for number in range(videos):
        path = folder / "videos" / f"{video_id(number)}.mp4"
        if number % VIDEOS_PER_FILE == 0:
            first = path
            path.write_bytes(content)
        else:
            path.hardlink_to(first)
        target = folder / "features" / video_id(number)
        target.with_suffix(".npy").write_bytes(features)
        target.with_suffix(".json").write_text(json.dumps(origin(path, encoder)))


@dataclass(kw_only=True)
class NoEncoderConfig:
    """No settings."""


class NoEncoder:
    """An encoder that must not be called."""

    fingerprint, fps, size, feature_dim = "made", 1, 16, 48

    def __init__(self, config: NoEncoderConfig) -> None:
        pass

    def __call__(self, frames: Any) -> Any:
        raise AssertionError("a finished video was extracted again")


def resume(folder: Path, videos: int) -> None:
    from mmpt_plugin import registry
    from mmpt_plugin.features.extract import extract

    registry.register_encoder("no_encoder", dataclass=NoEncoderConfig)(NoEncoder)
    report = extract([folder / "videos"], folder / "features", encoder={"_name": "no_encoder"})
    assert (report.done, report.skipped) == (0, videos), report


def make_nothing(folder: Path, videos: int) -> None:
    """The files need not exist."""


def work_in_processes(folder: Path, videos: int) -> None:
    """As many videos that are not finished, in two processes that do nothing."""
    from mmpt_plugin.video.store import VideoList
    from mmpt_plugin.video.workers import work_through

    ids = tuple(video_id(number) for number in range(videos))
    report = work_through(
        VideoList(tuple(folder / f"{name}.mp4" for name in ids), ids),
        nothing,
        build=build_nothing,
        is_finished=unfinished,
        keep=lambda report, nothing: None,
        num_workers=2,
        allow_missing=False,
    )
    assert report.done == videos


def nothing(name: str, path: Path) -> int:
    return 0


def build_nothing() -> Callable[[str, Path], int]:
    return nothing


def unfinished(name: str, path: Path) -> bool:
    return False


# Shards of 200 GB, whose features are holes of sparse files.
def open_shards(folder: Path, gigabytes: int) -> None:
    from mmpt_plugin.datasets import OverlappedClips, OverlappedClipsConfig

    OverlappedClips(OverlappedClipsConfig(splits={"train": str(folder / "shards")}, verify_checksums=False))


def doctor(folder: Path, gigabytes: int) -> None:
    words = ["videoclip/small", f"task.dataset.splits={{train: {folder}/shards}}", f"checkpoint.save_dir={folder}/run"]
    words += ["dataset.disable_validation=true"]
    command = [sys.executable, "-m", "mmpt_plugin.cli", "doctor", *words]
    done = subprocess.run(command, check=False, text=True, capture_output=True)
    assert done.returncode == 0, done.stdout + done.stderr


CASES = {
    "video": Case(
        "minutes of 1080p",
        (60, 120),
        make_video,
        {"mmpt extract": extract_video, "mmpt cache-frames": cache_video, "mmpt index": index_video},
    ),
    "captions": Case(
        "captions of one video",
        (15_000, 60_000),
        make_captions,
        {
            "mmpt shard, vtt": Sharding("vtt"),
            "mmpt shard, raw_caption.json": Sharding("raw_caption.json"),
            "100 batches": draw_batches,
        },
    ),
    "ids": Case(
        "videos",
        (275_000, 1_100_000),
        make_ids,
        {
            "read a list": list_videos,
            "open shards": open_and_copy,
            "100 batches": draw_batches,
            "clusters of uniform": draw_uniform,
            "mmpt shard, no features": shard_absent,
            "annotations, no features": read_annotations,
        },
    ),
    "resume": Case(
        "finished videos",
        (275_000, 1_100_000),
        make_finished,
        {"mmpt extract again": resume},
    ),
    "workers": Case("videos", (275_000, 1_100_000), make_nothing, {"two processes": work_in_processes}),
    "shards": Case(
        "GB of shards",
        (50, 200),
        make_sparse,
        {"open the data set": open_shards, "mmpt doctor PROJECT": doctor},
    ),
}
