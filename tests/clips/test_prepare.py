"""Features and captions -> shards: what is complete goes in, what is not is named or counted."""

import numpy as np
import pytest

from mmpt_plugin.clips.prepare import make_shards
from mmpt_plugin.features.extract import read_features, write_features
from mmpt_plugin.features.shards import Shards


@pytest.fixture
def folders(kitchen, tmp_path):
    (tmp_path / "features").mkdir()
    (tmp_path / "captions").mkdir()
    for video in ("a", "b"):
        write_features(tmp_path / "features" / f"{video}.npy", np.ones((6, 4), dtype=np.float16))
        (tmp_path / "captions" / f"{video}.jsonl").write_text('{"start": 1, "end": 3, "text": "chop the tomato"}\n')
    return {
        "features": tmp_path / "features",
        "captions": tmp_path / "captions",
        "tokenizer": str(kitchen.root / "tokenizer"),
        "out": tmp_path / "shards",
    }


def test_the_kitchen_went_in_whole(kitchen):
    shards = Shards(kitchen.shards)
    assert shards.video_ids == (kitchen.root / "train.txt").read_text().split()
    features = read_features(kitchen.features / f"{shards.video_ids[3]}.npy")
    np.testing.assert_array_equal(shards[3].features, features)
    assert all(record.tokens.min() > 4 for record in (shards[i] for i in range(12)))  # no [UNK], no special token


def test_incomplete_videos_are_an_error_or_counted(folders):
    with pytest.raises(ValueError, match=r"1 of 3 videos are incomplete, such as 'c': no .*c.npy"):
        make_shards(["a", "b", "c"], **folders)
    assert not folders["out"].exists()
    report = make_shards(["a", "b", "c"], **folders, allow_missing=True)
    assert (report.videos, report.captions, list(report.missing)) == (2, 2, ["c"])
    assert Shards(folders["out"]).video_ids == ["a", "b"]


def test_a_video_shorter_than_its_captions_is_named(folders):
    (folders["captions"] / "b.jsonl").write_text('{"start": 1, "end": 30, "text": "chop"}\n')
    with pytest.raises(ValueError, match=r"b.jsonl, caption 1 \(1 to 30 s\): the video is shorter, 6 s"):
        make_shards(["a", "b"], **folders)
    assert not folders["out"].exists()


def test_features_of_two_widths_are_named(folders):
    write_features(folders["features"] / "b.npy", np.ones((6, 5), dtype=np.float16))
    with pytest.raises(ValueError, match=r"video 'b': features have shape \(6, 5\), expected \(T, 4\)"):
        make_shards(["a", "b"], **folders)


def test_an_empty_list_is_refused(folders):
    with pytest.raises(ValueError, match="the list of videos is empty"):
        make_shards([], **folders)
