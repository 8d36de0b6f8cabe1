"""Shards: a round trip, detection of damage when they are opened, and atomic writes."""

import json
import pickle
import zlib
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from mmpt_plugin.shards.format import INDEX, Shards
from mmpt_plugin.shards.writer import ShardWriter

TOKENIZER = {"name": "toy", "cls_id": 2, "sep_id": 3, "pad_id": 0}


def video(seed: int, seconds: int = 5):
    rng = np.random.default_rng(seed)
    features = rng.standard_normal((seconds, 4)).astype(np.float16)
    times = np.array([[0.0, 2.0], [2.0, 4.5]], dtype=np.float32)
    return features, times, [[10 + seed, 11], [12]]


def writer_of(folder, **settings):
    return ShardWriter(folder, **{"feature_dim": 4, "encoder": "toy", "tokenizer": TOKENIZER} | settings)


def fill(folder, *videos, **settings):
    with writer_of(folder, **settings) as writer:
        for one in videos:
            writer.add(*one)
    return folder


def write(folder, videos=5):
    return fill(folder, *((f"v{i}", *video(i, seconds=5 + i)) for i in range(videos)), videos_per_shard=2)


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


def test_a_tokenizer_may_have_nothing_before_a_text(tmp_path):
    with ShardWriter(tmp_path / "s", feature_dim=4, encoder="toy", tokenizer=TOKENIZER | {"cls_id": None}) as writer:
        writer.add("v", *video(0))
    assert Shards(tmp_path / "s").cls_id is None


def test_a_copy_in_another_process_reopens_the_files(tmp_path):
    shards = Shards(write(tmp_path / "s"))
    sent = pickle.dumps(shards)
    assert len(sent) < 500
    np.testing.assert_array_equal(pickle.loads(sent)[3].features, shards[3].features)


def test_a_sequence_counts_from_both_ends_and_stops(tmp_path):
    shards = Shards(write(tmp_path / "s"))
    assert [record.video_id for record in shards] == shards.video_ids
    assert shards[-1].video_id == "v4"
    assert [record.video_id for record in shards[1:4:2]] == ["v1", "v3"]
    with pytest.raises(IndexError):
        shards[5]


def test_videos_are_found_by_id(tmp_path):
    shards = Shards(write(tmp_path / "s"))
    assert shards.index_of("v3") == 3
    with pytest.raises(ValueError, match=r"no video 'v9' among the 5 of .*s"):
        shards.index_of("v9")


def test_records_are_read_only_views(tmp_path):
    shards = Shards(write(tmp_path / "s"))
    first, again = shards[2], shards[2]
    for name in ("features", "caption_times", "token_counts", "tokens"):
        assert np.shares_memory(getattr(first, name), getattr(again, name))
        assert not getattr(first, name).flags.writeable


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="looks at Linux's list of mapped files")
def test_shards_are_mapped_into_memory(tmp_path):
    shards = Shards(write(tmp_path / "s"))
    mapped = Path("/proc/self/maps").read_text()
    assert all(f"{tmp_path}/s/shard-0000{i}.safetensors" in mapped for i in range(3))
    assert len(shards) == 5


def test_what_is_written_is_what_the_array_was_when_added(tmp_path):
    features, times, tokens = video(0)
    right = features.copy()
    with writer_of(tmp_path / "s") as writer:
        writer.add("v", features, times, tokens)
        features[:] = 0
    np.testing.assert_array_equal(Shards(tmp_path / "s")[0].features, right)


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


def rewrite(folder, **changed):
    """Other arrays in the first shard, with an index that fits them."""
    path = folder / "shard-00000.safetensors"
    save_file(load_file(path) | changed, path)
    index = json.loads((folder / INDEX).read_text())
    index["shards"][0] |= {"bytes": path.stat().st_size, "crc32": zlib.crc32(path.read_bytes())}
    (folder / INDEX).write_text(json.dumps(index))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"feature_offsets": [0, 5, 10]}, "the bounds of its features are wrong"),
        ({"feature_offsets": [0, 12, 11]}, "the bounds of its features are wrong"),
        ({"feature_offsets": [1, 5, 11]}, "the bounds of its features are wrong"),
        ({"caption_offsets": [0, 4]}, "the bounds of its captions are wrong"),
        ({"token_counts": np.array([2, 1, 2, 2], dtype=np.int32)}, "the bounds of its tokens are wrong"),
        ({"token_counts": np.array([2, -1, 4, 1], dtype=np.int32)}, "the bounds of its tokens are wrong"),
        ({"tokens": np.arange(6)}, r"tokens are int64 \(6,\), expected int32"),
        (
            {"features": np.ones((11, 3), dtype=np.float16)},
            r"features are float16 \(11, 3\), expected float16 of \(4,\)",
        ),
    ],
)
def test_a_shard_that_contradicts_itself_is_named(tmp_path, changed, message):
    rewrite(write(tmp_path / "s"), **{name: np.asarray(value) for name, value in changed.items()})
    with pytest.raises(ValueError, match=rf"shard .*shard-00000.safetensors does not fit its index: .*{message}"):
        Shards(tmp_path / "s")


def test_a_file_that_is_no_shard_is_named(tmp_path):
    path = write(tmp_path / "s") / "shard-00000.safetensors"
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(ValueError, match=r"shard .*shard-00000.safetensors is damaged"):
        Shards(tmp_path / "s", verify=False)


@pytest.mark.parametrize(
    "change", [None, {"shards": [{"file": "a"}]}, {"tokenizer": {}}, {"tokenizer": 7}, {"more": 1}]
)
def test_a_damaged_index_is_named(tmp_path, change):
    path = write(tmp_path / "s") / INDEX
    path.write_text("{" if change is None else json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(ValueError, match=r"index.json is damaged"):
        Shards(tmp_path / "s")


def test_another_version_is_refused(tmp_path):
    path = write(tmp_path / "s") / INDEX
    path.write_text(json.dumps(json.loads(path.read_text()) | {"version": 99}))
    with pytest.raises(ValueError, match="has version 99"):
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
        (lambda f, t, w: (f, t, w[:1]), "video 'bad' has 2 captions, but tokens for 1"),
        (lambda f, t, w: (f, t + np.float32(np.inf), w), "video 'bad': caption times hold NaN or infinity"),
    ],
)
@pytest.mark.filterwarnings("error")
def test_a_bad_video_is_named_and_nothing_is_left(tmp_path, change, message):
    with pytest.raises(ValueError, match=message):
        fill(tmp_path / "s", ("good", *video(0)), ("bad", *change(*video(1))))
    assert list(tmp_path.iterdir()) == []


def test_a_video_that_comes_twice_is_named(tmp_path):
    with pytest.raises(ValueError, match="video 'v' is added twice"):
        fill(tmp_path / "s", ("v", *video(0)), ("v", *video(0)))


def test_something_else_is_not_overwritten(tmp_path):
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match="contains something other than shards"):
        writer_of(tmp_path / "thesis.txt")
    with pytest.raises(ValueError, match="contains something other than shards"):
        writer_of(tmp_path)


def test_new_shards_replace_old_ones_only_when_they_are_whole(tmp_path):
    write(tmp_path / "s", videos=5)
    old = Shards(tmp_path / "s")
    with pytest.raises(ValueError, match="is added twice"):
        fill(tmp_path / "s", ("v", *video(0)), ("v", *video(0)))
    assert len(Shards(tmp_path / "s")) == 5
    write(tmp_path / "s", videos=3)
    assert len(Shards(tmp_path / "s")) == 3
    np.testing.assert_array_equal(old[4].features, video(4, seconds=9)[0])
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


def test_what_a_killed_writer_left_is_cleared(tmp_path):
    killed = tmp_path / ".s.abc.tmp" / "s"
    killed.mkdir(parents=True)
    (killed / "shard-00007.safetensors").write_text("half")
    write(tmp_path / "s", videos=1)
    assert sorted(path.name for path in (tmp_path / "s").iterdir()) == [INDEX, "shard-00000.safetensors"]
    assert [path.name for path in tmp_path.iterdir()] == ["s"]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"videos_per_shard": 0}, "videos_per_shard must be at least 1, got 0"),
        ({"tokenizer": {"cls_id": 2, "pad_id": 0}}, "the tokenizer's sep_id must be an integer, got None"),
        ({"tokenizer": {"sep_id": 3, "pad_id": 0}}, "the tokenizer's cls_id must be an integer, got None"),
    ],
)
def test_a_wrong_setting_is_named(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        writer_of(tmp_path / "s", **given)


def test_an_empty_set_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no videos for the shards"):
        write(tmp_path / "s", videos=0)


@pytest.mark.parametrize(
    ("vocab_size", "message"),
    [
        (3, "the tokenizer's sep_id is 3, but it has 3 word pieces"),
        (5, "has the token ids .* to .*, but the tokenizer 5"),
    ],
)
def test_token_ids_that_the_tokenizer_does_not_have_are_named(tmp_path, vocab_size, message):
    index = write(tmp_path / "s") / "index.json"
    content = json.loads(index.read_text())
    content["tokenizer"] |= {"vocab_size": vocab_size, "cls_id": 2, "sep_id": 3, "pad_id": 0}
    index.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message):
        Shards(tmp_path / "s")
