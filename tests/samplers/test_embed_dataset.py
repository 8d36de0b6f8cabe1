"""One vector a video, on every rank, for the sampler's index."""

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn

from mmpt_plugin.batch import Batch
from mmpt_plugin.samplers import dataset_embeddings
from mmpt_plugin.samplers.dataset_embeddings import embed_dataset
from tests.ranks import on_ranks

NUM_VIDEOS, PAIRS = 45, 2


class TwoPairs(torch.utils.data.Dataset):
    """Of video v: features (v, 1) and (v + 2, 1), so that its mean is (v + 1, 1)."""

    feature_dim, pad_id = 2, 0

    def __len__(self):
        return NUM_VIDEOS

    def __getitem__(self, cluster):
        ids = torch.tensor(cluster.videos).repeat_interleave(PAIRS)
        features = torch.stack([ids + torch.tensor([0, 2]).repeat(len(ids) // 2), torch.ones_like(ids)], dim=1)
        mask = torch.ones(len(ids), 1, dtype=torch.bool)
        return Batch(features[:, None].float(), mask, torch.zeros(len(ids), 1, dtype=torch.int64), mask, ids)


class HalvedVideo(nn.Module):
    """Video embeddings are the features with dropout, text embeddings zeros."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(()))  # says where the model is

    def forward(self, batch):
        video = nn.functional.dropout(batch.video[:, 0], training=self.training)
        return video, torch.zeros_like(video)


def embed(**options):
    return embed_dataset(HalvedVideo(), TwoPairs(), seed=1, epoch=1, **options)


EXPECTED = np.stack([(np.arange(NUM_VIDEOS) + 1) / 2, np.full(NUM_VIDEOS, 0.5)], axis=1).astype(np.float16)


@pytest.mark.parametrize(("chunk", "gathered"), [(32, 32), (4, 3), (45, 1)])
def test_a_video_is_the_mean_of_its_pairs_video_and_text(monkeypatch, chunk, gathered):
    monkeypatch.setattr(dataset_embeddings, "EMBEDDING_CHUNK", chunk)
    monkeypatch.setattr(dataset_embeddings, "GATHERED_CHUNKS", gathered)
    vectors = embed()
    assert vectors.dtype == np.float16
    np.testing.assert_array_equal(vectors, EXPECTED)


@pytest.mark.parametrize("training", [True, False])
def test_the_model_is_left_in_its_mode(training):
    model = HalvedVideo().train(training)
    embed_dataset(model, TwoPairs(), seed=1, epoch=1)
    assert model.training == training


def embed_share(rank, size, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    dataset_embeddings.EMBEDDING_CHUNK, dataset_embeddings.GATHERED_CHUNKS = 4, 2
    np.savez(f"{folder}/{rank}.npz", whole=embed(), share=embed(gather=False))
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [2, 4, 5])
def test_ranks_embed_a_share_each_and_get_all(size, tmp_path):
    """45 videos in 12 chunks of 4, the last of one: five ranks take three chunks each, and the last has none left."""
    on_ranks(embed_share, size, size, tmp_path)
    found = [np.load(tmp_path / f"{rank}.npz") for rank in range(size)]
    for each in found:
        np.testing.assert_array_equal(each["whole"], EXPECTED)
    shares = [each["share"] for each in found]
    np.testing.assert_array_equal(np.concatenate(shares), EXPECTED)
    assert len(shares[0]) == -(-12 // size) * 4
