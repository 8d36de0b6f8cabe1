"""A cluster for the tests of this folder, and something small to train on it."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tests.conftest import TINY_MODEL, Kitchen
from tests.launch import cluster


@pytest.fixture(scope="session")
def slurm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[cluster.Cluster]:
    """Four nodes. SLURM_TESTS=required makes a failure of what would be a reason to skip."""
    if reason := cluster.why_not():
        assert os.environ.get("SLURM_TESTS") != "required", reason
        pytest.skip(reason)
    with cluster.running(tmp_path_factory.mktemp("slurm"), num_nodes=4) as started:
        yield started


@dataclass(frozen=True)
class Narrated:
    """96 videos of noise with captions of noise, and a project that takes seconds to train on them."""

    shards: Path
    project: Path


@pytest.fixture(scope="session")
def narrated(kitchen: Kitchen, tmp_path_factory: pytest.TempPathFactory) -> Narrated:
    from mmpt_plugin.shards.make import make_shards

    root = tmp_path_factory.mktemp("narrated")
    rng = np.random.default_rng(0)
    words = (kitchen.root / "tokenizer" / "vocab.txt").read_text().split()[5:]
    for folder in ("features", "captions"):
        (root / folder).mkdir()
    for i in range(96):
        np.save(root / "features" / f"v{i:02d}.npy", rng.standard_normal((40, 16)).astype(np.float16))
        lines = [
            json.dumps({"start": 4.0 * k, "end": 4.0 * k + 3.5, "text": " ".join(rng.choice(words, 8))})
            for k in range(9)
        ]
        (root / "captions" / f"v{i:02d}.jsonl").write_text("\n".join(lines))
    make_shards(
        None,
        features=root / "features",
        captions=root / "captions",
        tokenizer=str(kitchen.root / "tokenizer"),
        out=root / "shards",
    )
    project = root / "project.yaml"
    model = TINY_MODEL | {"_name": "videoclip", "feature_dim": 16, "hidden_size": 64, "intermediate_size": 128}
    project.write_text(f"""# @package _global_
defaults: [/projects/base@_global_, /tasks@task: toy_kitchen, _self_]
model: {json.dumps(model)}
criterion: {{_name: nce}}
sampler: {{_name: retrieval_augmented, cluster_size: 4, num_neighbors: 8}}
task: {{dataset: {{splits: {{train: {root}/shards}}, pairs_per_video: 4}}}}
dataset: {{num_workers: 0}}
common: {{log_interval: 1}}
optimization: {{max_epoch: 2, lr: [1.0e-3]}}
lr_scheduler: {{warmup_updates: 5, total_num_update: 1000}}  # the same rates however long a test trains
checkpoint: {{save_dir: "???", no_epoch_checkpoints: true}}
""")
    return Narrated(root / "shards", project)
