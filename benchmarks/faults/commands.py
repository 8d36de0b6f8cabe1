"""The jobs of the benchmark: `mmpt`'s commands that write, on a toy kitchen of a few videos."""

import shlex
import zlib
from collections.abc import Sequence
from pathlib import Path

from benchmarks.faults.jobs import SAVE_INTERVAL, Job, State, collection, files, training
from benchmarks.faults.processes import finish, in_fork, start

ENCODER = "{_name: efficientnet_lite0, size: 32}"
MODEL = {
    "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32, "num_video_layers": 1, "num_text_layers": 1,
    "max_position_embeddings": 80, "dropout": 0.0,
}  # fmt: skip
VIDEOS, HELD_OUT = 8, 2
COMMANDS = (
    "generate", "extract", "cache-frames", "shard", "train", "convert", "embed", "index", "evaluate", "prepare",
    "report",
)  # fmt: skip


def make_inputs(folder: Path) -> None:
    """What the commands read: videos, features, shards, a trained checkpoint and two models."""
    data = folder / "data"
    mmpt(folder, f"generate toy_kitchen --train {VIDEOS - HELD_OUT} --test {HELD_OUT} --workers 2 --out {data}")
    mmpt(folder, f"extract {data}/videos --encoder '{ENCODER}' --out {folder}/features")
    mmpt(folder, shard(folder, folder / "shards"))
    for seed in (1, 2):
        run = folder / f"run{seed}"
        mmpt(folder, train(folder, run, epochs=1, more=f"common.seed={seed}"))
    mmpt(folder, convert(folder, 1, folder / "model"))
    in_fork(make_clip_model, folder / "clip")
    few = sorted((data / "train.txt").read_text().split())[:2]
    (folder / "few.txt").write_text("\n".join(few))


def make_clip_model(out: Path) -> None:
    """A model that reads frames, with random weights."""
    import torch

    from mmpt_plugin.models import CLIPMean
    from mmpt_plugin.models.clip import CLIPModelConfig
    from tests.models.clip_family import TINY

    torch.manual_seed(0)
    CLIPMean(CLIPModelConfig(**TINY)).save_pretrained(out)  # type: ignore[arg-type]


def mmpt(folder: Path, line: str) -> None:
    """Run a command; RuntimeError if it fails."""
    log = folder / "inputs.log"
    if status := finish(start(shlex.split(line), log)):
        raise RuntimeError(f"mmpt {line}: exit status {status}\n{log.read_text()[-2000:]}")


def shard(folder: Path, out: Path, videos: str = "data/train.txt") -> str:
    data = folder / "data"
    return (
        f"shard --videos {folder / videos} --features {folder}/features --captions {data}/captions "
        f"--tokenizer {data}/tokenizer --out {out}"
    )


def train(folder: Path, out: Path, *, epochs: int = 3, more: str = "") -> str:
    """Clusters of neighbors, a checkpoint every second of three updates an epoch."""
    model = " ".join(f"model.{key}={value}" for key, value in MODEL.items())
    return (
        f"train videoclip/toy_kitchen task.dataset.splits.train={folder}/shards task.dataset.pairs_per_video=2 {model} "
        f"sampler.cluster_size=2 sampler.num_neighbors=3 dataset.num_workers=0 optimization.max_epoch={epochs} "
        f"lr_scheduler.warmup_updates=1 common.log_interval=1 checkpoint.save_interval_updates={SAVE_INTERVAL} "
        f"checkpoint.keep_interval_updates=1 checkpoint.save_dir={out} {more}"
    )


def convert(folder: Path, number: int, out: Path) -> str:
    checkpoint = folder / f"run{number}" / "checkpoint_last.pt"
    return f"convert {checkpoint} --out {out} --tokenizer {folder}/data/tokenizer --encoder '{ENCODER}'"


def evaluate(folder: Path, out: Path) -> str:
    paths = {"annotations": "data/test_clips.jsonl", "features": "features", "videos": "data/videos"}
    paths["tokenizer"] = "data/tokenizer"
    words = " ".join(f"task.dataset.{key}={folder / path}" for key, path in paths.items())
    return f"evaluate videoclip/zeroshot task=toy_kitchen_clips {words} checkpoint={folder}/model --json {out}"


def jobs_of(folder: Path, names: Sequence[str]) -> list[Job]:
    """The jobs of these commands, on the inputs in a folder."""
    return [job_of(folder, name, folder / "out" / name / "made") for name in names]


def job_of(folder: Path, name: str, out: Path) -> Job:
    """One job, whose output is the folder or file `out`."""
    data = folder / "data"
    lines = {
        "generate": f"generate toy_kitchen --train 2 --test 1 --workers 1 --out {out}",
        "extract": f"extract {data}/videos --encoder '{ENCODER}' --out {out}",
        "cache-frames": f"cache-frames {data}/videos --size 32 --out {out}",
        "shard": shard(folder, out),
        "train": train(folder, out),
        "convert": convert(folder, 1, out),
        "embed": f"embed {folder}/model {data}/videos --out {out}/vectors.safetensors",
        "index": f"index {data}/videos --collection {out} --model {folder}/clip",
        "evaluate": evaluate(folder, Path(f"{out}.json")),
        "report": f"report {folder}/run1 {folder}/run2 --out {out}.html",
        "prepare": f"prepare {data}/videos --captions {data}/captions --encoder '{ENCODER}' "
        f"--tokenizer {data}/tokenizer --valid 0.25 --out {out}",
    }
    older = {"shard": shard(folder, out, "few.txt"), "convert": convert(folder, 2, out)}
    return Job(
        name,
        folder,
        tuple(shlex.split(lines[name])),
        tuple(shlex.split(older.get(name, ""))),
        {"train": training, "index": collection, "cache-frames": cached_frames}.get(name, files),
        changing={
            "generate": ("made/about.json",),
            "train": ("made/checkpoint", "made/clusters", "made/train.log"),
        }.get(name, ()),
        uncompared=(*(f"made/checkpoint_{epoch}" for epoch in range(10)), "made/train.log") if name == "train" else (),
    )


def cached_frames(folder: Path) -> State:
    """The frames of each video; the shards that they are in depend on where a run was interrupted."""
    from mmpt_plugin.video.frame_cache import SHARDS, FrameCache

    out = folder / "made"
    if not any(out.glob(SHARDS)):
        return files(folder)
    cache = FrameCache(out)
    frames = {video: f"{zlib.crc32(cache.content(video)):08x}" for video in cache.ids()}
    return frames | {name: content for name, content in files(folder).items() if not name.endswith(".safetensors")}


def small_commits() -> None:
    """Let processes write more often, so that there are more moments between writes."""
    from mmpt_plugin.search import collection as collections
    from mmpt_plugin.shards.make import make_shards
    from mmpt_plugin.video import frame_cache

    collections.COMMIT_ROWS = 1
    frame_cache.VIDEOS_PER_SHARD = 2
    assert make_shards.__kwdefaults__ is not None
    make_shards.__kwdefaults__["videos_per_shard"] = 2
