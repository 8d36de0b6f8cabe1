"""One index for all ranks: several processes find what one finds."""

import numpy as np
import pytest
import torch.distributed as dist

from mmpt_plugin.index import SharedQueries, SharedVectors, build_index
from mmpt_plugin.index.flat import Flat
from mmpt_plugin.samplers import RetrievalAugmented, RetrievalAugmentedConfig
from tests.ranks import on_ranks

K = 10
ASKED = np.arange(3, 600, 7)
SOME = np.setdiff1d(np.arange(600), np.arange(0, 600, 5))


def vectors():
    rng = np.random.default_rng(0)
    return rng.standard_normal((600, 16)).astype(np.float16)


def part(rank, size):
    """Unequal parts, in the order of ranks."""
    bounds = [0, *(600 * np.arange(1, size) // size + 7), 600]
    return vectors()[bounds[rank] : bounds[rank + 1]]


def search(rank, size, folder):
    dist.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=size)
    queries = SharedQueries(build_index(vectors(), k=K))
    parts = SharedVectors(build_index(part(rank, size), k=K))

    def clusters(**options):
        config = RetrievalAugmentedConfig(cluster_size=4, num_neighbors=8, **options)
        sampler = RetrievalAugmented(config, num_videos=600, seed=1)
        return sampler.clusters(1, lambda gather: vectors() if gather else part(rank, size))

    np.savez(
        f"{folder}/{rank}.npz",
        queries=queries.neighbors(ASKED, K),
        parts=parts.neighbors(ASKED, K),
        queries_some=queries.only(SOME).neighbors(ASKED, K),
        parts_some=parts.only(SOME).neighbors(ASKED, K),
        scores=parts.search(vectors()[ASKED], K)[0],
        clusters=clusters(),
        clusters_sharded=clusters(sharded=True),
        cover=clusters(cover=True),
        cover_sharded=clusters(cover=True, sharded=True),
    )
    dist.destroy_process_group()


@pytest.mark.parametrize("size", [2, 4])
def test_ranks_together_find_what_one_index_finds(size, tmp_path):
    on_ranks(search, size, size, tmp_path)
    scores, exact = Flat(vectors()).search(vectors()[ASKED], K)
    some = Flat(vectors()).only(SOME).search(vectors()[ASKED], K)[1]
    alone = {
        cover: RetrievalAugmented(
            RetrievalAugmentedConfig(cluster_size=4, num_neighbors=8, cover=cover), num_videos=600, seed=1
        ).clusters(1, lambda gather: vectors())
        for cover in (False, True)
    }
    for rank in range(size):
        found = np.load(tmp_path / f"{rank}.npz")
        for name in ("queries", "parts"):
            np.testing.assert_array_equal(found[name], exact)
            np.testing.assert_array_equal(found[f"{name}_some"], some)
        np.testing.assert_allclose(found["scores"], scores, rtol=1e-5)
        for name in ("clusters", "clusters_sharded"):
            np.testing.assert_array_equal(found[name], alone[False])
        for name in ("cover", "cover_sharded"):
            np.testing.assert_array_equal(found[name], alone[True])
