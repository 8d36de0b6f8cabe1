"""Batches of overlapped clips, cut from real shards."""

from pathlib import Path

import numpy as np
import pytest
import torch

from mmpt_plugin.batch import Cluster, concatenate
from mmpt_plugin.datasets import OverlappedClips, OverlappedClipsConfig
from mmpt_plugin.shards.format import Shards
from mmpt_plugin.shards.writer import ShardWriter
from mmpt_plugin.video import store
from mmpt_plugin.video.sparse_frames import FramesConfig
from mmpt_plugin.video.write import write_video

CLUSTER = Cluster(seed=1, epoch=2, number=3, videos=(4, 0, 7))


@pytest.fixture(scope="module")
def dataset(kitchen):
    return OverlappedClips(OverlappedClipsConfig(splits={"train": str(kitchen.shards)}, pairs_per_video=16))


def test_a_batch_has_16_pairs_of_each_video_in_order(dataset):
    batch = dataset[CLUSTER]
    assert len(batch) == 48
    assert batch.video_ids.tolist() == [4] * 16 + [0] * 16 + [7] * 16


def test_video_rows_are_the_videos_own_consecutive_seconds(dataset, kitchen):
    batch, shards = dataset[CLUSTER], Shards(kitchen.shards)
    for i in range(len(batch)):
        features = torch.from_numpy(np.array(shards[int(batch.video_ids[i])].features))
        length = int(batch.video_mask[i].sum())
        assert 3 <= length <= 32
        assert batch.video_mask[i, :length].all()
        starts = [
            s
            for s in range(len(features) - length + 1)
            if torch.equal(features[s : s + length], batch.video[i, :length])
        ]
        assert starts, "these rows are nowhere in the video"
        assert (batch.video[i, length:] == 0).all()


def test_text_rows_are_runs_of_the_videos_own_captions(dataset, kitchen):
    batch, shards = dataset[CLUSTER], Shards(kitchen.shards)
    for i in range(len(batch)):
        length = int(batch.text_mask[i].sum())
        ids = batch.text[i]
        assert ids[0] == 2
        assert ids[length - 1] == 3
        assert (ids[length:] == 0).all()
        words, spoken = ids[1 : length - 1].tolist(), shards[int(batch.video_ids[i])].tokens.tolist()
        assert len(words) <= 61
        assert any(spoken[s : s + len(words)] == words for s in range(len(spoken)))


def test_a_cluster_draws_the_same_clips_anywhere_and_others_draw_others(dataset):
    once, again = dataset[CLUSTER].tensors(), dataset[CLUSTER].tensors()
    for name in once:
        assert torch.equal(once[name], again[name])
    other = dataset[CLUSTER._replace(epoch=3)]
    assert other.video.shape != once["video"].shape or not torch.equal(other.video, once["video"])


def test_a_long_text_is_cut_at_its_tail(tmp_path):
    """One caption of 100 tokens: the clip is [CLS], its first 61, [SEP]."""
    with ShardWriter(
        tmp_path / "s", feature_dim=2, encoder="toy", tokenizer={"cls_id": 2, "sep_id": 3, "pad_id": 0}
    ) as writer:
        writer.add("v", np.ones((40, 2)), np.array([[0.0, 5.0]]), [list(range(10, 110))])
    dataset = OverlappedClips(OverlappedClipsConfig(splits={"train": str(tmp_path / "s")}, pairs_per_video=1))
    batch = dataset[Cluster(0, 1, 0, (0,))]
    assert batch.text[0].tolist() == [2, *range(10, 71), 3]


def test_aligned_clips_hold_the_seconds_of_their_text(tmp_path):
    """Features are their own second: the rows tell what was cut. One caption from 3.5 to 6.2 s: seconds 3 to 6."""
    with ShardWriter(
        tmp_path / "s", feature_dim=1, encoder="toy", tokenizer={"cls_id": 2, "sep_id": 3, "pad_id": 0}
    ) as writer:
        writer.add("v", np.arange(40.0)[:, None], np.array([[3.5, 6.2]]), [[9] * 20])
    config = OverlappedClipsConfig(splits={"train": str(tmp_path / "s")}, pairs_per_video=4, overlap=False)
    batch = OverlappedClips(config)[Cluster(0, 1, 0, (0,))]
    assert batch.video[:, :, 0].tolist() == [[3, 4, 5, 6]] * 4


def one_caption(folder, shift):
    """Features are their own second. One caption from 3.5 to 6.2 s, of 20 tokens: the clip over its very seconds."""
    if not folder.exists():
        special = {"cls_id": 2, "sep_id": 3, "pad_id": 0}
        with ShardWriter(folder, feature_dim=1, encoder="toy", tokenizer=special) as writer:
            writer.add("v", np.arange(40.0)[:, None], np.array([[3.5, 6.2]]), [[9] * 20])
    settings = {"splits": {"train": str(folder)}, "pairs_per_video": 2, "overlap": False}
    batch = OverlappedClips(OverlappedClipsConfig(**settings, caption_shift=shift))[Cluster(0, 1, 0, (0,))]
    return batch.video[:, :, 0].tolist()


@pytest.mark.parametrize(
    ("shift", "seconds"), [(0.0, [3, 4, 5, 6]), (10.0, [13, 14, 15, 16]), (-2.0, [1, 2, 3, 4]), (90.0, [39])]
)
def test_shifted_captions_go_with_other_seconds(tmp_path, shift, seconds):
    """Ten seconds later it is seconds 13 to 16; past the end it is the last one."""
    assert one_caption(tmp_path / "s", shift) == [seconds] * 2


@pytest.fixture
def filmed(tmp_path):
    """40 s at a frame a second, each as bright as five times its second, and 5 s in the dark, where features say 9."""
    (tmp_path / "videos").mkdir()
    for name, levels in (("v", range(0, 200, 5)), ("w", [0] * 5)):
        frames = [np.full((16, 16, 3), level, dtype=np.uint8) for level in levels]
        write_video(tmp_path / "videos" / f"{name}.mp4", frames, fps=1)
    special = {"cls_id": 2, "sep_id": 3, "pad_id": 0}
    with ShardWriter(tmp_path / "s", feature_dim=1, encoder="toy", tokenizer=special) as writer:
        writer.add("v", np.arange(40.0)[:, None], np.array([[3.5, 6.2], [20.0, 30.0]]), [[9] * 20, [8] * 20])
        writer.add("w", np.arange(9.0)[:, None], np.array([[1.0, 8.0]]), [[7] * 20])
    return {"splits": {"train": str(tmp_path / "s")}, "videos": str(tmp_path / "videos"), "pairs_per_video": 8}


def test_the_same_clips_are_drawn_of_frames_as_of_features(filmed):
    """Up to three frames of each clip: the middles of three equal parts of its seconds, those of a video together."""
    cluster = Cluster(0, 1, 0, (1, 0))
    of_rows = OverlappedClips(OverlappedClipsConfig(**filmed))
    of_frames = OverlappedClips(OverlappedClipsConfig(**filmed, frames=FramesConfig(num_frames=3, size=16)))
    assert (of_rows.feature_dim, of_frames.feature_dim) == (1, None)
    rows, frames = of_rows[cluster], of_frames[cluster]
    assert torch.equal(rows.text, frames.text)
    assert frames.video_ids.tolist() == rows.video_ids.tolist() == [1] * 8 + [0] * 8
    assert (frames.video.shape, frames.video.dtype) == ((16, 3, 16, 16, 3), torch.uint8)
    assert frames.video[:8].max() < 3
    for i in range(8, 16):
        seconds = rows.video[i, rows.video_mask[i], 0].tolist()
        parts = [int(seconds[0] + len(seconds) * part / 6) for part in (1, 3, 5)]
        assert frames.video[i].float().mean(dim=(1, 2, 3)).tolist() == pytest.approx([5 * p for p in parts], abs=2)


def test_a_video_is_opened_once_for_all_its_pairs(filmed, monkeypatch):
    opened = []

    def spied(path, times, *, size, read_squares=store.read_squares):
        opened.append((path.stem, len(times)))
        return read_squares(path, times, size=size)

    monkeypatch.setattr(store, "read_squares", spied)
    OverlappedClips(OverlappedClipsConfig(**filmed, frames=FramesConfig(num_frames=3, size=16)))[
        Cluster(0, 1, 0, (0, 1))
    ]
    assert [name for name, _ in opened] == ["v", "w"]
    assert max(number for _, number in opened) <= 24


def test_videos_without_a_file_are_named(filmed):
    (Path(filmed["videos"]) / "w.mp4").unlink()
    with pytest.raises(ValueError, match=r"1 of the 2 videos of .*s can't be read in .*videos: w"):
        OverlappedClips(OverlappedClipsConfig(**filmed, frames=FramesConfig()))


def test_frames_need_videos():
    with pytest.raises(ValueError, match=r"dataset\.frames needs dataset\.videos"):
        OverlappedClipsConfig(frames=FramesConfig())


def test_batches_join_with_padding(dataset):
    batches = [dataset[CLUSTER._replace(number=number)] for number in range(3)]
    whole = concatenate(batches, pad_id=0)
    assert len(whole) == 144
    for i, batch in enumerate(batches):
        rows = slice(48 * i, 48 * (i + 1))
        assert torch.equal(whole.text[rows][whole.text_mask[rows]], batch.text[batch.text_mask])
        assert torch.equal(whole.video[rows][whole.video_mask[rows]], batch.video[batch.video_mask])


def test_a_split_that_is_not_there_is_named(kitchen):
    with pytest.raises(ValueError, match=r"dataset.splits: no split 'trian'. Did you mean 'train'"):
        OverlappedClips(OverlappedClipsConfig(splits={"train": str(kitchen.shards)}), "trian")
