"""Which videos share a batch."""

import numpy as np
import pytest

from mmpt_plugin.samplers import RetrievalAugmented, RetrievalAugmentedConfig, Uniform, UniformConfig
from mmpt_plugin.samplers.coverage import Coverage, coverage
from mmpt_plugin.samplers.epoch_plan import read_clusters, write_clusters

RUN = {"epoch": 2, "seed": 1, "num_videos": 9}


def never():
    pytest.fail("uniform sampling needs no embeddings")


def retrieval(num_videos, k, from_, **options):
    config = RetrievalAugmentedConfig(cluster_size=k, num_neighbors=from_, **options)
    return RetrievalAugmented(config, num_videos=num_videos, seed=1)


def test_uniform_shows_every_video_and_fills_the_last_cluster():
    sampler = Uniform(UniformConfig(cluster_size=4), num_videos=10, seed=1)
    clusters = sampler.clusters(1, never)
    assert clusters.shape == (3, 4)
    assert sorted(set(clusters.ravel().tolist())) == list(range(10))
    assert (sampler.clusters(1, never) == clusters).all()
    assert (sampler.clusters(2, never) != clusters).any()


def test_clusters_are_drawn_from_their_centres_neighbours():
    """Four groups of eight far apart: with 2k = 8 a cluster never leaves its centre's group."""
    groups = np.repeat(np.eye(4) * 10, 8, axis=0) + np.random.default_rng(0).normal(0, 0.1, (32, 4))
    clusters = retrieval(32, 4, 8).clusters(1, lambda **_: groups)
    assert clusters.shape == (8, 4)
    for cluster in clusters:
        assert len(set(cluster.tolist())) == 4
        assert len({video // 8 for video in cluster.tolist()}) == 1


def test_k_of_2k_neighbours_are_drawn_at_random():
    """One tight group and one centre's 2k nearest: over epochs each is drawn, about equally often."""
    vectors = np.random.default_rng(0).standard_normal((8, 4))
    sampler = retrieval(8, 4, 8)
    drawn = np.concatenate([sampler.clusters(epoch, lambda **_: vectors).ravel() for epoch in range(400)])
    counts = np.bincount(drawn, minlength=8)
    assert counts.min() > 0.85 * counts.mean()


def test_covering_clusters_show_every_video_once():
    """Six groups of eight far apart: each centre's eight nearest make two clusters, at random."""
    groups = np.repeat(np.eye(6) * 10, 8, axis=0) + np.random.default_rng(0).normal(0, 0.1, (48, 6))
    sampler = retrieval(48, 4, 8, cover=True)
    clusters = sampler.clusters(1, lambda **_: groups)
    assert clusters.shape == (12, 4)
    assert sorted(clusters.ravel().tolist()) == list(range(48))
    assert all(len({video // 8 for video in cluster.tolist()}) == 1 for cluster in clusters)
    again = sampler.clusters(2, lambda **_: groups)
    assert {frozenset(cluster.tolist()) for cluster in clusters} != {frozenset(cluster.tolist()) for cluster in again}


def test_the_last_covering_cluster_is_filled_with_neighbours():
    """Ten videos in fours: two clusters, and the last two videos with two that are shown twice."""
    vectors = np.random.default_rng(0).standard_normal((10, 4))
    for epoch in range(20):
        clusters = retrieval(10, 4, 8, cover=True).clusters(epoch, lambda **_: vectors)
        assert clusters.shape == (3, 4)
        assert coverage(clusters, 10) == Coverage(10, missed=0, repeated=2, most=2)
        assert all(len(set(cluster.tolist())) == 4 for cluster in clusters)


@pytest.mark.parametrize("kind", ["uniform", "retrieval", "covering"])
def test_another_seed_or_epoch_draws_other_clusters(kind):
    vectors = np.random.default_rng(0).standard_normal((40, 4))

    def draw(seed, epoch):
        if kind == "uniform":
            return Uniform(UniformConfig(cluster_size=4), num_videos=40, seed=seed).clusters(epoch, never)
        config = RetrievalAugmentedConfig(cluster_size=4, num_neighbors=8, cover=kind == "covering")
        return RetrievalAugmented(config, num_videos=40, seed=seed).clusters(epoch, lambda **_: vectors)

    first = draw(1, 1)
    np.testing.assert_array_equal(draw(1, 1), first)
    assert (draw(1, 2) != first).any()
    assert (draw(2, 1) != first).any()
    assert (draw(2, 2) != draw(1, 2)).any()


def test_centres_are_drawn_once_each():
    """Of videos far apart and clusters of one, each its own centre: every video comes once."""
    for epoch in range(5):
        clusters = retrieval(20, 1, 1).clusters(epoch, lambda **_: np.eye(20))
        assert sorted(clusters.ravel().tolist()) == list(range(20))


def test_the_metric_decides_what_is_near():
    """By inner product the longest vector is nearest to all; by distance each pair of close ones is."""
    vectors = np.array([[1.0, 0.0], [1.1, 0.0], [9.0, 0.0], [9.1, 0.0]])

    def found(**options):
        sampler = retrieval(4, 2, 2, **options)
        return {frozenset(c.tolist()) for epoch in range(9) for c in sampler.clusters(epoch, lambda **_: vectors)}

    assert found() == found(distance="l2") == {frozenset({0, 1}), frozenset({2, 3})}
    assert found(distance="inner_product") == {frozenset({2, 3})}


def test_the_cluster_filled_up_has_no_place_of_its_own():
    """Of nine videos in fours, the third cluster has three that come twice: over epochs it is in every place."""
    vectors = np.random.default_rng(0).standard_normal((9, 4))
    places = set()
    for epoch in range(40):
        clusters = retrieval(9, 4, 8, cover=True).clusters(epoch, lambda **_: vectors)
        repeated = (np.bincount(clusters.ravel(), minlength=9) > 1)[clusters].sum(axis=1)
        if (repeated == 3).sum() == 1:  # unless another has the same three
            places.add(int(np.argmax(repeated)))
    assert places == {0, 1, 2}


@pytest.mark.parametrize("sharded", [False, True])
def test_vectors_are_gathered_unless_they_are_sharded(sharded):
    asked = []

    def embed(*, gather):
        asked.append(gather)
        return np.eye(8)

    retrieval(8, 4, 8, sharded=sharded).clusters(1, embed)
    assert asked == [not sharded]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: UniformConfig(cluster_size=0), "sampler.cluster_size must be at least 1, got 0"),
        (lambda: RetrievalAugmentedConfig(index_recall=0.0), r"sampler.index_recall must be in \(0, 1\], got 0.0"),
        (lambda: RetrievalAugmentedConfig(index_recall=1.1), r"sampler.index_recall must be in \(0, 1\], got 1.1"),
        (
            lambda: RetrievalAugmentedConfig(cluster_size=5, num_neighbors=4),
            "sampler.num_neighbors 4 is smaller than sampler.cluster_size 5",
        ),
    ],
)
def test_bad_settings_are_named(make, message):
    RetrievalAugmentedConfig(cluster_size=4, num_neighbors=4, index_recall=1.0)  # the limits themselves are fine
    with pytest.raises(ValueError, match=message):
        make()


def test_coverage_counts_the_missed_and_the_repeated():
    """Of six videos, 0 is shown three times, 3 twice, 5 once."""
    counted = coverage(np.array([[0, 3, 5], [0, 3, 0]]), 6)
    assert counted == Coverage(6, missed=3, repeated=2, most=3)
    assert counted.share == 0.5
    assert coverage(np.array([[0, 1]]), 4) == Coverage(4, missed=2, repeated=0, most=1)


def test_a_sampler_reports_its_coverage(caplog):
    caplog.set_level("INFO")
    retrieval(8, 4, 8, cover=True).clusters(3, lambda **_: np.eye(8))
    assert "epoch 3: 2 clusters of 4 videos show 100.0 % of 8 videos (0 missed, 0 more than once" in caplog.text


def test_too_few_videos_are_refused():
    with pytest.raises(ValueError, match="sampler.num_neighbors is 64, but the split has only 40 videos"):
        retrieval(40, 32, 64)
    with pytest.raises(ValueError, match="sampler.cluster_size is 32, but the split has only 3 videos"):
        Uniform(UniformConfig(), num_videos=3, seed=1)


def test_embeddings_that_are_not_finite_are_named_before_faiss_sees_them():
    vectors = np.eye(16, dtype=np.float16)
    vectors[5, 3] = np.nan
    vectors[9, 0] = np.inf
    with pytest.raises(ValueError, match="2 of 16 videos are not finite before epoch 4, such as video 5"):
        retrieval(16, 4, 8).clusters(4, lambda **_: vectors)


def test_saved_clusters_serve_the_run_that_stopped_in_them(tmp_path):
    path, clusters = tmp_path / "clusters.safetensors", np.arange(9).reshape(3, 3)
    write_clusters(path, clusters, RUN)
    np.testing.assert_array_equal(read_clusters(path, RUN), clusters)
    assert read_clusters(path, RUN | {"epoch": 3}) is None


def test_saved_clusters_of_another_run_are_left_and_what_changed_is_said(tmp_path, caplog):
    path = tmp_path / "clusters.safetensors"
    write_clusters(path, np.arange(9).reshape(3, 3), RUN)
    assert read_clusters(path, RUN | {"num_videos": 12}) is None
    write_clusters(path, np.arange(9).reshape(3, 3), RUN | {"sampler": "{_name: uniform, cluster_size: 3}"})
    assert read_clusters(path, RUN | {"sampler": "{_name: uniform, cluster_size: 4}"}) is None
    assert "sampler was {_name: uniform, cluster_size: 3} and is {_name: uniform, cluster_size: 4}" in caplog.text
    assert "num_videos was 9 and is 12" in caplog.text
    assert "seed" not in caplog.text


def test_damaged_saved_clusters_are_named(tmp_path):
    path = tmp_path / "clusters.safetensors"
    write_clusters(path, np.arange(9).reshape(3, 3), RUN)
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"clusters.safetensors is damaged"):
        read_clusters(path, RUN)
