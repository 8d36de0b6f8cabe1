"""Valid files of every kind that commands read, made once; mutations and attacks change copies of them."""

import json
import pickle
import shutil
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import yaml

from mmpt_plugin.cli import main as mmpt
from mmpt_plugin.features.extract import extract
from mmpt_plugin.features.s3d import S3D
from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.search import Collection
from mmpt_plugin.shards.make import make_shards
from mmpt_plugin.tokenizer import load_tokenizer
from mmpt_plugin.toy_kitchen import generate
from mmpt_plugin.video.cache_frames import cache_frames
from mmpt_plugin.video.frame_cache import FrameSettings
from mmpt_plugin.video.write import write_video
from tests.cli.test_released_files import vocabulary
from tests.conftest import TINY_ENCODER, TINY_MODEL
from tests.corpora.test_readers import ACTIVITYNET, COIN, MOMENT, MSRVTT, YOUCOOK2
from tests.models.released import GOLDEN as CLIP_FAMILY
from tests.models.released import write
from tests.models.test_released import checkpoint

GOLDEN = CLIP_FAMILY.parent
ENCODER = "{_name: s3d, size: 32, fps: 4}"
TASK = {
    "_name": "text_video_retrieval", "dataset": {"_name": "jsonl", "annotations": "clips.jsonl", "features": "features"}
}  # fmt: skip
CONTAINERS = {"mkv": "mpeg4", "avi": "mpeg4", "mov": "libx264", "webm": "libvpx-vp9", "mpg": "mpeg2video", "flv": "flv"}


def make(root: Path) -> None:
    """Write all seeds below a folder; half a minute on one core."""
    torch.manual_seed(0)
    kitchen = root / "kitchen"
    generate(kitchen, num_train=3, num_test=1, num_workers=1)
    extract([kitchen / "videos"], kitchen / "features", encoder=TINY_ENCODER)
    tokenizer = str(kitchen / "tokenizer")
    videos = (kitchen / "train.txt").read_text().split()
    make_shards(
        videos, features=kitchen / "features", captions=kitchen / "captions", tokenizer=tokenizer, out=root / "shards"
    )
    model = VideoCLIP(VideoCLIPConfig(**TINY_MODEL, max_video_len=32)).eval()
    model.tokenizer, model.encoder = load_tokenizer(tokenizer), TINY_ENCODER
    model.save_pretrained(root / "model")
    model.tokenizer.save_pretrained(root / "tokenizer")
    make_videos(root / "videos")
    cache_frames([root / "videos"], root / "frames", settings=FrameSettings(size=24, fps=1, quality=90))
    make_checkpoints(root)
    make_captions(root)
    make_corpora(root / "corpora")
    make_yaml(root, kitchen)
    Collection.create(root / "collection", model=root / "model").index([root / "videos" / "v.mp4"])
    save_dir = f"checkpoint.save_dir={root / 'run_of_training'}"
    if mmpt(["train", str(root / "yaml" / "training.yaml"), save_dir, "common.cpu=true"]):
        raise RuntimeError("the seed of training_checkpoint was not made")


def make_videos(folder: Path) -> None:
    folder.mkdir()
    frames = [np.full((32, 48, 3), 12 * number, dtype=np.uint8) for number in range(20)]
    write_video(folder / "v.mp4", frames, fps=4)
    for suffix, codec in CONTAINERS.items():
        with av.open(str(folder / f"{suffix}.{suffix}"), "w") as container:
            stream = container.add_stream(codec, rate=Fraction(25))
            stream.width, stream.height, stream.pix_fmt, stream.bit_rate = 48, 32, "yuv420p", 200_000
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode())


def make_checkpoints(root: Path) -> None:
    folder = root / "checkpoints"
    folder.mkdir()
    shutil.copy(GOLDEN / "version_0_1" / "checkpoint_last.pt", folder / "ours.pt")
    shutil.copy(GOLDEN / "videoclip_released_layout.pt", folder / "released.pt")
    shutil.copy(CLIP_FAMILY / "openai_clip" / "archive.pt", folder / "archive.pt")
    for name in ("clip2video/K5/full", "clip4clip/seqTransf/full"):
        write(folder, checkpoint(name), f"{name.split('/')[0]}.pt")
    torch.save(S3D(vocab_size=10).state_dict(), folder / "s3d.pth")
    vocabulary.__wrapped__(root)
    shutil.copytree(GOLDEN / "mmpt_shards", root / "original")


def make_captions(root: Path) -> None:
    """The captions of one video in each format; all have the features of the kitchen's first video."""
    folder = root / "captions"
    folder.mkdir()
    texts = ["chop the onion &amp; stir", "<c>fold</c> the cap", "pour the milk"]
    cues = [(f"00:00:0{2 * i}.000", f"00:00:0{2 * i + 2}.500", text) for i, text in enumerate(texts)]
    folder.joinpath("v.vtt").write_text("WEBVTT\n\n" + "".join(f"{a} --> {b}\n{text}\n\n" for a, b, text in cues))
    numbered = "".join(f"{i}\n{a} --> {b}\n{text}\n\n" for i, (a, b, text) in enumerate(cues, 1)).replace(".", ",")
    folder.joinpath("v.srt").write_text(numbered)
    records = [{"start": 2.0 * i, "end": 2.0 * i + 2.5, "text": text} for i, text in enumerate(texts)]
    folder.joinpath("v.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    lines = "".join(json.dumps({"video_id": "v"} | record) + "\n" for record in records)
    folder.joinpath("all.jsonl").write_text(lines)
    columns = {"v": {key: [record[key] for record in records] for key in ("start", "end", "text")}}
    folder.joinpath("raw.json").write_text(json.dumps(columns))
    folder.joinpath("raw.pickle").write_bytes(pickle.dumps(columns))


def make_corpora(folder: Path) -> None:
    """A small file in each official format; the features of all videos are below `features`."""
    clip = {"video_id": "v", "start": 0, "end": 4, "caption": "chop"}
    msrvtt = {"videos": [{"video_id": "v", "split": "test"}], "sentences": [{"video_id": "v", "caption": "chop"}]}
    files: dict[str, Any] = {
        "jsonl/a.jsonl": "".join(json.dumps(clip | {"start": start}) + "\n" for start in (0, 1, 2)),
        "msrvtt/a.csv": "key,vid_key,video_id,sentence\nret0,msr7,v,chop\nret1,msr8,w,stir\n",
        "msrvtt_json/a.json": msrvtt if MSRVTT else None,
        "msrvtt_multiple_choice/a.csv": "vid_key\ta1\ta2\ta3\ta4\ta5\tanswer\nmsr7\ta\tb\tc\td\te\t3\n",
        "youcook2/a.json": {"database": {"v": YOUCOOK2, "w": YOUCOOK2}},
        "didemo/a.json": [MOMENT | {"video": "v.mp4"}, MOMENT | {"annotation_id": 1, "video": "w.avi"}],
        "didemo_moments/a.json": [MOMENT | {"video": "v.mp4"}, MOMENT | {"annotation_id": 1, "video": "w.avi"}],
        "msvd/a.csv": "VideoID,Start,End,WorkerID,Language,Description\nx,1,9,7,English,chop\nx,1,9,8,German,rühren\n",
        "msvd/list.txt": "x_1_9\n",
        "msvd_pickle/list.txt": "x_1_9\n",
        "msvd_pickle/a.pkl": pickle.dumps({"x_1_9": [["a", "man", "cuts"], ["chop"]]}),
        "vatex/a.json": [{"videoID": "v", "enCap": ["chop", "stir"], "chCap": ["切"]}],
        "lsmdc/a.csv": "v\t00.00.51.926\t00.00.54.129\t00.00.51.926\t00.00.54.129\tSOMEONE waves.\n",
        "activitynet/a.json": {"v_v": ACTIVITYNET, "v_w": ACTIVITYNET},
        "coin/a.json": {"database": {"v": COIN, "w": COIN}},
        "crosstask/r/tasks_primary.txt": "7\nTitle\nurl\n2\ncut,mix\n\n",
        "crosstask/r/videos.csv": "7,v,url\n7,w,url\n",
        "crosstask/r/videos_val.csv": "9,x,url\n",
        "crosstask/r/annotations/7_v.csv": "1,1,3\n2,2,4\n",
        "crosstask/r/annotations/7_w.csv": "1,1,3\n2,2,4\n",
        "hmdb51/a/brush_hair_test_split1.txt": "v.avi 2\nw.avi 1\nx.avi 0\n",
        "ucf101/a/classInd.txt": "1 ApplyEyeMakeup\n2 Archery\n",
        "ucf101/a/testlist01.txt": "Archery/v.avi\nApplyEyeMakeup/w.avi\n",
        "kinetics/a.csv": "label,youtube_id,time_start,time_end,split\nabseiling,k,0,10,val\n",
        "labelled_csv/a.csv": "video_id,label\nv,chop\nw,stir\n",
    }
    for name, content in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        as_text = content if isinstance(content, str) else json.dumps(content) if not isinstance(content, bytes) else ""
        path.write_bytes(content if isinstance(content, bytes) else as_text.encode())
    (folder / "features").mkdir()
    rows = np.random.default_rng(0).standard_normal((10, 512)).astype(np.float16)
    for video_id in ("v", "w", "x", "v_v", "v_w", "x_1_9", "video7", "video8", "k_000000_000010"):
        np.save(folder / "features" / f"{video_id}.npy", rows)


def make_yaml(root: Path, kitchen: Path) -> None:
    """A project that evaluates, a task, a profile, and the folder of a run."""
    folder = root / "yaml"
    folder.mkdir()
    features = str(root / "corpora" / "features")
    dataset = {"_name": "jsonl", "annotations": str(root / "corpora" / "jsonl" / "a.jsonl"), "features": features}
    task = TASK | {"dataset": dataset | {"tokenizer": str(kitchen / "tokenizer")}, "test_set": "own"}
    project = {
        "checkpoint": str(root / "model"),
        "protocol": "zero_shot",
        "benchmarks": ["toy_kitchen_clips"],
        "task": task,
    }
    folder.joinpath("task.yaml").write_text(yaml.safe_dump(task))
    folder.joinpath("project.yaml").write_text("# @package _global_\n" + yaml.safe_dump(project, sort_keys=False))
    training = {
        "defaults": ["/projects/videoclip/small@_global_", {"/tasks@task": "toy_kitchen"}, "_self_"],
        "sampler": {"_name": "uniform", "cluster_size": 2},
        "optimization": {"max_epoch": 2, "lr": [0.001]},
        "task": {"dataset": {"splits": {"train": str(root / "shards")}}},
        "checkpoint": {"save_dir": "run"},
    }
    folder.joinpath("training.yaml").write_text("# @package _global_\n" + yaml.safe_dump(training, sort_keys=False))
    profile = {
        "executor": "slurm", "nodes": 1, "gpus_per_node": 1, "cpus_per_task": 2, "mem_gb": 8, "hours": 1.0,
        "partition": "gpu", "setup": ["module load x"], "extra": {"reservation": "icml"},
    }  # fmt: skip
    folder.joinpath("profile.yaml").write_text(yaml.safe_dump(profile))
    run = root / "run"
    run.mkdir()
    settings = {"optimization": {"lr": [0.001]}, "checkpoint": {"save_dir": str(run)}, "task": task}
    run.joinpath("project.yaml").write_text(yaml.safe_dump(settings))
    stats = {"epoch": 1, "num_updates": "10", "loss": "2.5", "t2v_recall@1": "0.5"}
    log = [json.dumps(stats | {"num_updates": str(n)}) for n in (10, 20, 30)]
    run.joinpath("train.log").write_text("2026-01-31 12:34:56 | INFO | x | begin\n" + "\n".join(log) + "\n")
    metrics = {"t2v_recall@1": 0.5, "t2v_median_rank": 2.0}
    found = {"video_id": "v", "start": 0.0, "end": 4.0, "caption": "chop", "score": 0.5}
    example = {"text": "chop", "rank": 1, "right": found, "found": [found], "half": "better"}
    result = {
        "task": "text_video_retrieval", "metrics": metrics, "chance": metrics,
        "num_queries": 2, "num_clips": 2, "missing_videos": 0,
        "examples": [example],
    }  # fmt: skip
    run.joinpath("metrics.json").write_text(json.dumps(result))
    root.joinpath("sentences.txt").write_text("chop the onion\nfold the cap\n")
