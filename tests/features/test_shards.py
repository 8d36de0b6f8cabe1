"""Shards: what goes in comes out, damage is found at opening, and nothing is half-written."""

import json
import pickle

import numpy as np
import pytest

from mmpt_plugin.features.shards import INDEX, Shards, ShardWriter

TOKENIZER = {"name": "toy", "cls_id": 2, "sep_id": 3, "pad_id": 0}


def video(seed: int, seconds: int = 5):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((seconds, 4)).astype(np.float16)
    times = np.array([[0.0, 2.0], [2.0, 4.5]], dtype=np.float32)
    return features, times, [[10 + seed, 11], [12]]


def write(folder, videos=5, per_shard=2):
    with ShardWriter(folder, feature_dim=4, encoder="toy", tokenizer=TOKENIZER, videos_per_shard=per_shard) as writer:
        for i in range(videos):
            writer.add(f"v{i}", *video(i, seconds=5 + i))
    return folder


def test_videos_come_back_as_written(tmp_path):
    shards = Shards(write(tmp_path / "s"))
    assert len(shards) == 5
    assert shards.video_ids == ["v0", "v1", "v2", "v3", "v4"]
    assert (shards.cls_id, shards.sep_id, shards.pad_id) == (2, 3, 0)
    for i in range(5):
        features, times, tokens = video(i, seconds=5 + i)
        np.testing.assert_array_equal(shards[i].features, features)
        np.testing.assert_array_equal(shards[i].caption_times, times)
        assert shards[i].tokens.tolist() == [token for ids in tokens for token in ids]
        assert shards[i].token_counts.tolist() == [2, 1]


def test_a_copy_in_another_process_reopens_the_files(tmp_path):
    shards = Shards(write(tmp_path / "s"))
    sent = pickle.dumps(shards)
    assert len(sent) < 500
    np.testing.assert_array_equal(pickle.loads(sent)[3].features, shards[3].features)


@pytest.mark.parametrize("verify", [True, False])
def test_a_truncated_shard_is_named(tmp_path, verify):
    shard = write(tmp_path / "s") / "shard-00001.safetensors"
    shard.write_bytes(shard.read_bytes()[:-10])
    with pytest.raises(ValueError, match=r"shard .*shard-00001.safetensors has \d+ bytes, its index says \d+"):
        Shards(tmp_path / "s", verify=verify)


def test_a_flipped_bit_is_found_and_named(tmp_path):
    shard = write(tmp_path / "s") / "shard-00002.safetensors"
    content = bytearray(shard.read_bytes())
    content[-3] ^= 1
    shard.write_bytes(content)
    with pytest.raises(ValueError, match=r"shard-00002.safetensors is damaged: its checksum"):
        Shards(tmp_path / "s")


def test_a_missing_shard_is_named(tmp_path):
    (write(tmp_path / "s") / "shard-00000.safetensors").unlink()
    with pytest.raises(ValueError, match=r"shard-00000.safetensors is missing"):
        Shards(tmp_path / "s")


def test_a_damaged_index_is_named(tmp_path):
    (write(tmp_path / "s") / INDEX).write_text("{")
    with pytest.raises(ValueError, match=r"index.json is damaged"):
        Shards(tmp_path / "s")


def test_another_version_is_refused(tmp_path):
    path = write(tmp_path / "s") / INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(ValueError, match="of version 99"):
        Shards(tmp_path / "s")


def test_a_folder_without_shards_is_named(tmp_path):
    with pytest.raises(ValueError, match="no shards in"):
        Shards(tmp_path)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda f, t, w: (f[:, :3], t, w), r"video 'bad': features have shape \(5, 3\), expected \(T, 4\)"),
        (lambda f, t, w: (f * np.float16(np.nan), t, w), "video 'bad': features hold NaN or infinity"),
        (lambda f, t, w: (f.astype(np.float32) + 1e6, t, w), "video 'bad': features hold NaN or infinity"),
        (lambda f, t, w: (f[:0], t, w), "video 'bad' has 0 s of features"),
        (lambda f, t, w: (f, t[:0], []), "video 'bad' has 5 s of features and 0 captions"),
    ],
)
@pytest.mark.filterwarnings("ignore:overflow")
def test_a_bad_video_is_named_and_nothing_is_left(tmp_path, change, message):
    with (
        pytest.raises(ValueError, match=message),
        ShardWriter(tmp_path / "s", feature_dim=4, encoder="toy", tokenizer=TOKENIZER) as writer,
    ):
        writer.add("good", *video(0))
        writer.add("bad", *change(*video(1)))
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_comes_twice_is_named(tmp_path):
    with (
        pytest.raises(ValueError, match="video 'v' comes twice"),
        ShardWriter(tmp_path / "s", feature_dim=4, encoder="toy", tokenizer=TOKENIZER) as writer,
    ):
        writer.add("v", *video(0))
        writer.add("v", *video(0))


def test_a_folder_of_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="holds something else than shards"):
        ShardWriter(tmp_path, feature_dim=4, encoder="toy", tokenizer=TOKENIZER)


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no videos for the shards"):
        write(tmp_path / "s", videos=0)
