"""Which videos share a batch."""

import numpy as np
import pytest

from mmpt_plugin.index import nearest
from mmpt_plugin.samplers import RetrievalAugmented, RetrievalAugmentedConfig, Uniform, UniformConfig
from mmpt_plugin.samplers.saved import read_clusters, write_clusters

RUN = {"epoch": 2, "seed": 1, "num_videos": 9}


def never():
    pytest.fail("uniform sampling needs no embeddings")


def retrieval(num_videos, k, from_):
    config = RetrievalAugmentedConfig(videos_per_batch=k, clusters_from=from_)
    return RetrievalAugmented(config, num_videos=num_videos, seed=1)


def test_uniform_shows_every_video_and_fills_the_last_cluster():
    sampler = Uniform(UniformConfig(videos_per_batch=4), num_videos=10, seed=1)
    clusters = sampler.clusters(1, never)
    assert clusters.shape == (3, 4)
    assert sorted(set(clusters.ravel().tolist())) == list(range(10))
    assert (sampler.clusters(1, never) == clusters).all()
    assert (sampler.clusters(2, never) != clusters).any()


def test_clusters_are_drawn_from_their_centres_neighbours():
    """Four groups of eight far apart: with 2k = 8 a cluster never leaves its centre's group."""
    groups = np.repeat(np.eye(4) * 10, 8, axis=0) + np.random.default_rng(0).normal(0, 0.1, (32, 4))
    clusters = retrieval(32, 4, 8).clusters(1, lambda: groups)
    assert clusters.shape == (8, 4)
    for cluster in clusters:
        assert len(set(cluster.tolist())) == 4
        assert len({video // 8 for video in cluster.tolist()}) == 1


def test_k_of_2k_neighbours_are_drawn_at_random():
    """One tight group and one centre's 2k nearest: over epochs each is drawn, about equally often."""
    vectors = np.random.default_rng(0).standard_normal((8, 4))
    sampler = retrieval(8, 4, 8)
    drawn = np.concatenate([sampler.clusters(epoch, lambda: vectors).ravel() for epoch in range(400)])
    counts = np.bincount(drawn, minlength=8)
    assert counts.min() > 0.85 * counts.mean()


def test_too_few_videos_are_refused():
    with pytest.raises(ValueError, match="sampler.clusters_from is 64, but the split has only 40 videos"):
        retrieval(40, 32, 64)
    with pytest.raises(ValueError, match="sampler.videos_per_batch is 32, but the split has only 3 videos"):
        Uniform(UniformConfig(), num_videos=3, seed=1)


def test_nearest_is_exact_in_both_metrics():
    rng = np.random.default_rng(0)
    vectors, queries = rng.standard_normal((200, 16)), rng.standard_normal((5, 16))
    by_product = np.argsort(-(queries @ vectors.T), axis=1)[:, :7]
    by_distance = np.argsort(((queries[:, None] - vectors) ** 2).sum(-1), axis=1)[:, :7]
    np.testing.assert_array_equal(nearest(vectors, queries, 7), by_product)
    np.testing.assert_array_equal(nearest(vectors, queries, 7, metric="l2"), by_distance)


@pytest.mark.parametrize(("k", "metric", "message"), [(9, "l2", "9 neighbours"), (2, "cosine", "no metric 'cosine'")])
def test_impossible_searches_are_refused(k, metric, message):
    with pytest.raises(ValueError, match=message):
        nearest(np.ones((3, 2)), np.ones((1, 2)), k, metric=metric)


def test_saved_clusters_serve_the_run_that_stopped_in_them(tmp_path):
    path, clusters = tmp_path / "clusters.safetensors", np.arange(9).reshape(3, 3)
    write_clusters(path, clusters, RUN, num_updates=10)
    np.testing.assert_array_equal(read_clusters(path, RUN, num_updates=12), clusters)
    assert read_clusters(path, RUN, num_updates=0) is None  # a run that starts afresh
    assert read_clusters(path, RUN, num_updates=9) is None  # one that has not come that far
    assert read_clusters(path, RUN | {"epoch": 3}, num_updates=12) is None


def test_damaged_saved_clusters_are_named(tmp_path):
    path = tmp_path / "clusters.safetensors"
    write_clusters(path, np.arange(9).reshape(3, 3), RUN, num_updates=10)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"clusters.safetensors is damaged"):
        read_clusters(path, RUN, num_updates=12)
