"""Training data made of a benchmark's own clips and segments."""

import json

import numpy as np
import pytest
import torch

from mmpt_plugin.batch import NO_LABEL, Cluster
from mmpt_plugin.datasets import (
    CaptionedClips,
    CaptionedClipsConfig,
    LabelledWindows,
    LabelledWindowsConfig,
)
from mmpt_plugin.features.files import write_features

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "chop", "stir", "the", "tomato"]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    (tmp_path / "features").mkdir()
    for video, seconds in (("a", 10), ("b", 45)):
        rows = np.arange(seconds)[:, None] + np.zeros((1, 4)) + (100 if video == "b" else 0)
        write_features(tmp_path / "features" / f"{video}.npy", rows.astype(np.float16))
    return tmp_path


def common(folder, annotations):
    return {
        "annotations": str(folder / annotations),
        "features": str(folder / "features"),
        "tokenizer": str(folder / "tokenizer"),
    }


@pytest.fixture
def clips(folder):
    """Two captions of one clip, one of another."""
    lines = [
        {"video_id": "a", "start": 2, "end": 5, "caption": "chop"},
        {"video_id": "b", "start": 0, "end": 45, "caption": "stir the tomato"},
        {"video_id": "a", "start": 2, "end": 5, "caption": "the tomato"},
    ]
    (folder / "clips.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return CaptionedClips(
        CaptionedClipsConfig(splits={"train": {"_name": "jsonl", **common(folder, "clips.jsonl")}}, repeat=3)
    )


def test_a_clip_has_its_seconds_and_one_of_its_captions(clips):
    assert len(clips) == 6
    captions = set()
    for epoch in range(20):
        batch = clips[Cluster(1, epoch, 0, (0, 3))]
        assert batch.video[0, :3, 0].tolist() == [2, 3, 4]
        assert batch.video[1, :, 0].tolist() == list(range(100, 132))  # its first 32 seconds
        assert batch.video_mask.sum(dim=1).tolist() == [3, 32]
        assert batch.text[1].tolist() == [2, 6, 7, 8, 3]
        captions.add(tuple(batch.text[0, batch.text_mask[0]].tolist()))
    assert captions == {(2, 5, 3), (2, 7, 8, 3)}


def test_a_cluster_is_drawn_alike_whenever_it_is_drawn(clips):
    one, two = (clips[Cluster(1, 2, 3, (0, 1))] for _ in range(2))
    assert torch.equal(one.text, two.text)


def test_windows_hold_a_label_a_second(folder):
    """45 s in windows of 32, 8 apart: 0, 8 and 16, which reaches the end after 29 s."""
    annotation = [
        {"id": "1", "segment": [3.5, 6.0], "label": "chop"},
        {"id": "2", "segment": [40, 50], "label": "stir"},
    ]
    database = {"b": {"subset": "training", "annotation": annotation}}
    database["a"] = {"subset": "testing", "annotation": [one | {"segment": [1, 2]} for one in annotation]}
    (folder / "COIN.json").write_text(json.dumps({"database": database}))
    corpus = {"_name": "coin", "split": "train", **common(folder, "COIN.json")}
    data = LabelledWindows(LabelledWindowsConfig(splits={"train": corpus}))
    batch = data[Cluster(1, 1, 0, (0,))]
    assert batch.video[:, 0, 0].tolist() == [100, 108, 116]
    assert batch.video_mask.sum(dim=1).tolist() == [32, 32, 29]
    assert batch.labels[0].tolist() == [0] * 3 + [1] * 3 + [0] * 26
    assert batch.labels[2].tolist() == [0] * 24 + [2] * 5 + [NO_LABEL] * 3
    assert data.num_labels == 3


def test_a_split_that_is_not_there_is_named(clips):
    with pytest.raises(ValueError, match=r"dataset.splits: no split 'valid'"):
        CaptionedClips(clips.config, "valid")
