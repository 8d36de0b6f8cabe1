"""Corpora of video files instead of features: frames of real clips, ready for a model."""

import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from mmpt_plugin import registry
from mmpt_plugin.batch import Cluster, concatenate
from mmpt_plugin.config import load_project, plain
from mmpt_plugin.corpora import (
    LSMDC,
    ActivityNet,
    ActivityNetConfig,
    DiDeMo,
    DiDeMoConfig,
    JSONLClips,
    JSONLConfig,
    LSMDCConfig,
)
from mmpt_plugin.datasets import CaptionedClips, CaptionedClipsConfig
from mmpt_plugin.tasks.finetuning import fine_tuned
from mmpt_plugin.video.cache_frames import cache_frames
from mmpt_plugin.video.frame_cache import FrameSettings
from mmpt_plugin.video.sparse_frames import FramesConfig
from mmpt_plugin.video.write import write_video

SIZE = 16
RUN = ["model.pretrained=somewhere", "checkpoint.save_dir=runs/x"]


def grey(level: int) -> np.ndarray:
    return np.full((24, 32, 3), level, dtype=np.uint8)


@pytest.fixture
def folder(tmp_path):
    """`long`: 8 s at two frames a second, as bright as its tenths of seconds; `short`: three frames in 1.5 s."""
    (tmp_path / "videos").mkdir()
    write_video(tmp_path / "videos" / "long.mp4", [grey(5 * i) for i in range(16)], fps=2)
    write_video(tmp_path / "videos" / "short.mp4", [grey(200), grey(210), grey(220)], fps=2)
    (tmp_path / "tokenizer").mkdir()
    words = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "chop", "stir"]
    (tmp_path / "tokenizer" / "vocab.txt").write_text("".join(f"{word}\n" for word in words))
    lines = [
        {"video_id": "long", "start": 2, "end": 8, "caption": "chop"},
        {"video_id": "short", "start": 0.5, "end": 9, "caption": "stir"},
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return tmp_path


def section(folder, **changes):
    return {
        "annotations": str(folder / "clips.jsonl"),
        "videos": str(folder / "videos"),
        "frames": {"num_frames": 3, "size": SIZE},
        "tokenizer": str(folder / "tokenizer"),
    } | changes


def corpus(folder, **changes):
    settings = section(folder, **changes)
    return JSONLClips(JSONLConfig(**settings | {"frames": FramesConfig(**settings["frames"])}))


def levels(frames: torch.Tensor) -> list[float]:
    return frames.float().mean(dim=(-3, -2, -1)).tolist()


@pytest.mark.parametrize(("sampling", "seconds"), [("uniform", [3, 5, 7]), ("head", [2, 3, 4]), ("tail", [5, 6, 7])])
def test_a_clip_has_the_frames_of_its_sampling(folder, sampling, seconds):
    data = corpus(folder, frames={"num_frames": 3, "size": SIZE, "sampling": sampling})
    frames = data.features(data.clips[0], max_video_len=32)
    assert (frames.shape, frames.dtype) == ((3, SIZE, SIZE, 3), torch.uint8)
    assert levels(frames) == pytest.approx([10 * second for second in seconds], abs=2)


def test_a_clip_of_two_frames_has_two_and_ends_with_its_video(folder):
    """From 0.5 s to the end at 1.5 s there are two, of which three were asked for."""
    data = corpus(folder)
    assert data.clips[1].end == 9
    assert levels(data.features(data.clips[1], max_video_len=32)) == pytest.approx([210, 220], abs=2)


def test_frames_are_a_batch_with_padding(folder):
    data = CaptionedClips(CaptionedClipsConfig(splits={"train": {"_name": "jsonl"} | section(folder)}))
    assert data.feature_dim is None
    batch = data[Cluster(1, 1, 0, (1, 0))]
    assert (batch.video.shape, batch.video.dtype) == ((2, 3, SIZE, SIZE, 3), torch.uint8)
    assert batch.video_mask.tolist() == [[True, True, False], [True, True, True]]
    assert levels(batch.video[0]) == pytest.approx([210, 220, 0], abs=2)
    assert levels(batch.video[1]) == pytest.approx([30, 50, 70], abs=2)
    assert batch.text.tolist() == [[2, 5, 3], [2, 4, 3]]
    short = data[Cluster(1, 1, 1, (1,))]
    whole = concatenate([short, batch], pad_id=0)
    assert whole.video.shape == (3, 3, SIZE, SIZE, 3)
    assert levels(whole.video[0]) == pytest.approx([210, 220, 0], abs=2)


def test_a_cache_stands_in_for_the_files(folder):
    cache_frames([folder / "videos"], folder / "cache", settings=FrameSettings(size=SIZE, fps=2))
    data = corpus(folder, videos=str(folder / "cache"))
    assert levels(data.features(data.clips[0], max_video_len=32)) == pytest.approx([30, 50, 70], abs=2)
    assert levels(data.features(data.clips[1], max_video_len=32)) == pytest.approx([210, 220], abs=2)
    assert len(data.fingerprints["videos_sha256"]) == 64


@pytest.mark.parametrize("context", ["fork", "spawn"])
def test_a_loader_s_workers_decode(kitchen, context):
    splits = {
        "train": {
            "_name": "jsonl",
            "annotations": str(kitchen.root / "test_clips.jsonl"),
            "videos": str(kitchen.root / "videos"),
            "frames": {"num_frames": 4, "size": SIZE},
            "tokenizer": str(kitchen.root / "tokenizer"),
        }
    }
    data = CaptionedClips(CaptionedClipsConfig(splits=splits))
    clusters = [Cluster(1, 1, number, (2 * number, 2 * number + 1)) for number in range(2)]
    here = [data[cluster] for cluster in clusters]
    loader = DataLoader(data, sampler=clusters, batch_size=None, num_workers=1, multiprocessing_context=context)
    for one, other in zip(here, loader, strict=True):
        assert other.video.shape == (2, 4, SIZE, SIZE, 3)
        assert torch.equal(one.video, other.video)


@pytest.mark.parametrize(
    "task",
    ["msrvtt", "msrvtt_7k", "msrvtt_full", "msrvtt_qa", "msvd", "vatex", "vatex_1k5", "didemo", "lsmdc", "activitynet"],
)
def test_one_override_turns_all_of_a_task_s_splits_to_frames(task):
    project = fine_tuned(
        plain(load_project("videoclip/finetune", [f"task={task}", *RUN, "task.dataset.frames.size=16"]))
    )
    splits = project["task"]["dataset"]["splits"]
    for section in (splits["train"], splits["valid"], project["task"]["benchmark"]["dataset"]):
        assert section["frames"] == {"size": 16}
        assert section["videos"] == f"data/{task.split('_')[0]}/videos"
    unchanged = fine_tuned(plain(load_project("videoclip/finetune", [f"task={task}", *RUN])))
    assert unchanged["task"]["dataset"]["splits"]["train"]["frames"] is None


def test_the_toy_kitchen_s_tasks_read_frames_by_overrides(kitchen):
    """Its held-out steps to be found, and pairs to train on."""
    frames = ["task.dataset.frames.num_frames=2", "task.dataset.frames.size=16"]
    here = [f"task.dataset.videos={kitchen.root / 'videos'}", *frames]
    files = [f"task.dataset.{key}={kitchen.root / path}" for key, path in (
        ("annotations", "test_clips.jsonl"), ("tokenizer", "tokenizer"),
    )]  # fmt: skip
    task = load_project("videoclip/zeroshot", ["task=toy_kitchen_clips", "checkpoint=x", *files, *here]).task
    clips = registry.corpora.build(plain(task.dataset))
    assert clips.features(clips.clips[0], max_video_len=32).shape == (2, 16, 16, 3)
    shards = [f"task.dataset.splits.train={kitchen.shards}"]
    task = load_project("videoclip/toy_kitchen", ["task=toy_kitchen", *shards, *here]).task
    batch = registry.datasets.build(plain(task.dataset), "train")[Cluster(1, 1, 0, (3,))]
    assert batch.video.shape == (16, 2, 16, 16, 3)


@pytest.mark.parametrize("damage", ["gone", "no video"])
def test_videos_that_can_t_be_read_are_an_error_or_counted(folder, damage):
    path = folder / "videos" / "long.mp4"
    path.unlink() if damage == "gone" else path.write_text("no video")
    with pytest.raises(ValueError, match=r"1 videos can't be read in .*videos: long \(set dataset.allow_missing"):
        corpus(folder)
    data = corpus(folder, allow_missing=True)
    assert data.missing_videos == ["long"]
    assert [clip.video_id for clip in data.clips] == ["short"]


@pytest.mark.parametrize("file", ["short.mp4", "short..mp4"])
def test_a_video_of_two_names_is_read_by_either(folder, file):
    """DiDeMo lists some videos twice, and some names end in a dot."""
    (folder / "videos" / "short.mp4").rename(folder / "videos" / file)
    moment = {"description": "stir", "times": [[0, 0]]}
    names = ["short.mov", "short.", "short.mp4"]
    records = [moment | {"annotation_id": number, "video": name} for number, name in enumerate(names)]
    (folder / "didemo.json").write_text(json.dumps(records))
    options = section(folder) | {
        "annotations": str(folder / "didemo.json"),
        "frames": FramesConfig(num_frames=2, size=16),
    }
    data = DiDeMo(DiDeMoConfig(**options))
    assert [(clip.video_id, clip.end, clip.caption) for clip in data.clips] == [("short", 1.5, "stir stir stir")]
    assert data.features(data.clips[0], max_video_len=2).shape == (2, 16, 16, 3)
    assert data.fingerprints.keys() == {"annotations_sha256", "videos_sha256"}


def test_two_ids_of_activitynet_never_share_a_video(folder):
    """`v_short` may be in `short.mp4`, but `v_v_short` is another video, which may not be there."""
    content = {"v_short": {"sentences": ["stir"]}, "v_v_short": {"sentences": ["cut"]}}
    (folder / "val.json").write_text(json.dumps(content))
    options = {"annotations": str(folder / "val.json"), "frames": FramesConfig(num_frames=2, size=16)}
    (folder / "videos" / "short.mp4").rename(folder / "videos" / "v_short.mp4")
    with pytest.raises(ValueError, match=r"videos/v_short matches two videos, 'v_short' and 'v_v_short'"):
        ActivityNet(ActivityNetConfig(**section(folder) | options))
    (folder / "videos" / "v_short.mp4").rename(folder / "videos" / "short.mp4")
    data = ActivityNet(ActivityNetConfig(**section(folder) | options, allow_missing=True))
    assert [(clip.video_id, clip.end, clip.caption) for clip in data.clips] == [("v_short", 1.5, "stir")]
    assert data.features(data.clips[0], max_video_len=2).shape == (2, 16, 16, 3)


def test_lsmdc_s_videos_are_found_below_their_movies(folder):
    """Published as .avi; the dots in an id are no suffix."""
    clip = "0001_American_Beauty_00.00.51.926-00.00.54.129"
    (folder / "videos" / "0001_American_Beauty").mkdir()
    (folder / "videos" / "short.mp4").rename(folder / "videos" / "0001_American_Beauty" / f"{clip}.avi")
    (folder / "test.csv").write_text(f"{clip}\t1\t2\t1\t2\tSOMEONE stirs.\n")
    options = {"annotations": str(folder / "test.csv"), "frames": FramesConfig(num_frames=2, size=16)}
    data = LSMDC(LSMDCConfig(**section(folder) | options))
    assert [(found.video_id, found.end) for found in data.clips] == [(clip, 1.5)]
    assert data.features(data.clips[0], max_video_len=2).shape == (2, 16, 16, 3)


def test_a_clip_past_its_video_is_named(folder):
    line = {"video_id": "short", "start": 1.5, "end": 2, "caption": "stir"}
    (folder / "clips.jsonl").write_text(json.dumps(line))
    with pytest.raises(
        ValueError, match=r"clips.jsonl:1: a clip of 'short' starts at 1.5 s, but the video ends at 1.5 s"
    ):
        corpus(folder)


def test_results_tell_which_videos_they_are_of(folder):
    before = corpus(folder).fingerprints
    write_video(folder / "videos" / "short.mp4", [grey(100)] * 3, fps=2)
    after = corpus(folder).fingerprints
    assert before.keys() == {"annotations_sha256", "videos_sha256"}
    assert before["annotations_sha256"] == after["annotations_sha256"]
    assert before["videos_sha256"] != after["videos_sha256"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"frames": None}, "dataset.features is missing"),
        ({"videos": None}, "dataset.frames needs dataset.videos"),
    ],
)
def test_what_is_lacking_is_named(folder, changes, message):
    with pytest.raises(ValueError, match=message):
        JSONLConfig(**section(folder) | {"frames": FramesConfig()} | changes)


def test_more_frames_than_the_model_takes_are_an_error(folder):
    data = corpus(folder)
    with pytest.raises(ValueError, match=r"dataset.frames.num_frames 3 is more than max_video_len 2"):
        data.features(data.clips[0], max_video_len=2)


def test_a_row_a_second_is_not_to_be_had_of_frames(folder):
    with pytest.raises(ValueError, match="this task needs one feature row per second: remove dataset.frames"):
        corpus(folder).seconds("long")
