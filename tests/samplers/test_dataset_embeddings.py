"""Vectors from training's own embeddings."""

import numpy as np
import pytest
import torch
import torch.distributed as dist

from mmpt_plugin.samplers import dataset_embeddings
from mmpt_plugin.samplers.dataset_embeddings import RunningMeans
from tests.ranks import on_ranks


def stale(num_videos=4):
    return np.full((num_videos, 2), 9, dtype=np.float16)


def pairs(*rows):
    """(id, video, text) a pair, its embeddings (video, 0) and (text, 0)."""
    ids, video, text = (torch.tensor(column) for column in zip(*rows, strict=True))
    return (*(torch.stack([each.float(), torch.zeros(len(ids))], dim=1) for each in (video, text)), ids)


def test_a_video_has_the_mean_of_all_its_pairs_of_the_epoch():
    """Video 2: pairs (1 + 3) / 2 = 2, (5 + 5) / 2 = 5 and, a step later, (2 + 20) / 2 = 11: (2 + 5 + 11) / 3 = 6."""
    means = RunningMeans(stale())
    means.add(*pairs((2, 1, 3), (0, 4, 4), (2, 5, 5)))
    assert means.vectors.tolist() == stale().tolist()  # read by the next call, or a step would wait for the GPU
    means.add(*pairs((2, 2, 20)))
    assert means.vectors[:3].tolist() == [[4, 0], [9, 9], [3.5, 0]]
    assert means.merge().tolist() == [[4, 0], [9, 9], [6, 0], [9, 9]]


def test_the_next_epoch_replaces_what_it_shows_and_keeps_the_rest():
    means = RunningMeans(stale())
    means.add(*pairs((0, 4, 4), (1, 2, 2)))
    means.merge()
    means.add(*pairs((1, 8, 8)))
    assert means.merge().tolist() == [[4, 0], [8, 0], [9, 9], [9, 9]]


def show(rank, size, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    dataset_embeddings.MERGED_CHUNK = 3
    means = RunningMeans(stale())
    means.add(*pairs(*[[(0, 4, 4), (2, 1, 1), (2, 2, 2)], [(2, 9, 9), (3, 7, 7)]][rank]))
    np.save(f"{folder}/{rank}.npy", means.merge())
    dist.destroy_process_group()


def test_ranks_weigh_by_their_pairs(tmp_path):
    """Video 2 had two pairs, of 1 and 2, on one rank and one of 9 on the other: 12 / 3 = 4."""
    on_ranks(show, 2, 2, tmp_path)
    for rank in range(2):
        assert np.load(tmp_path / f"{rank}.npy").tolist() == [[4, 0], [9, 9], [4, 0], [7, 0]]


def test_it_wants_all_vectors_on_every_rank():
    from mmpt_plugin.tasks.pretraining import VideoTextPretrainingConfig

    with pytest.raises(ValueError, match="task.reuse_training_embeddings"):
        VideoTextPretrainingConfig(reuse_training_embeddings=True, sampler={"_name": "x", "sharded": True})
