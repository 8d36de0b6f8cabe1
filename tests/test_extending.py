"""docs/how-to/extend: the example of every kind works, from a user directory and from an installed package."""

import json
import os
import sys

import numpy as np
import pytest
import torch

from mmpt_plugin import Cluster, load_model, registry, user_dir
from mmpt_plugin.cli import main
from mmpt_plugin.config import load_project, plain
from mmpt_plugin.search.stores.store import store_of
from mmpt_plugin.tokenizer import load_tokenizer
from tests.conftest import KITCHEN, ROOT, run
from tests.search.oracle import WIDTH, run_operations
from tests.test_documentation import commands, files

PAGES = ROOT / "docs" / "how-to" / "extend"
INSTALLED = "TEST_INSTALLED"  # the folder in which the examples are an installed package


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """The files of the pages, saved as their reader saves them."""
    made = tmp_path_factory.mktemp("extend")
    for page in ("index.md", "components.md", "data.md"):
        for name, text in files(PAGES / page).items():
            (made / name).parent.mkdir(parents=True, exist_ok=True)
            (made / name).write_text(text, encoding="utf-8")
    return made


@pytest.fixture(scope="module")
def loaded(folder):
    """Load a user directory of the pages: once, because fairseq, if it is imported, registers no name twice.

    Where the folder of examples is an installed package, nothing needs to be loaded.
    """
    patch = pytest.MonkeyPatch()
    patch.setenv(user_dir.VARIABLE, "")
    patch.setattr(sys, "path", [*sys.path])

    if INSTALLED in os.environ:
        assert "clip_max" in registry.models  # by the entry point, before a user directory comes first
        assert sys.modules["my_plugin"].__file__.startswith(os.environ[INSTALLED])

    def load(name):
        if name != "my_plugin" or INSTALLED not in os.environ:
            user_dir.load(folder / name)

    yield load
    patch.undo()
    for kind in registry.REGISTRIES:
        for name, entry in [*kind._entries.items()]:
            if entry.cls.__module__.split(".")[0] in ("my_plugin", "mean_pool"):
                del kind._entries[name]
    for name in [name for name in sys.modules if name.split(".")[0] in ("my_plugin", "mean_pool")]:
        del sys.modules[name]
    user_dir.import_once.cache_clear()


def test_the_model_takes_half_precision_and_sentences_and_masks_padding(loaded, kitchen):
    loaded("mean_pool.py")
    model = registry.models.build({"_name": "mean_pool", "feature_dim": 4, "vocab_size": 9, "hidden_size": 3})
    rows, mask = torch.tensor([[[1.0, 0, 0, 0], [9, 9, 9, 9]]]), torch.tensor([[True, False]])
    torch.testing.assert_close(model.encode_video(rows.half(), mask), model.video(rows[:, 0]))
    model = registry.models.build({"_name": "mean_pool", "feature_dim": 4, "vocab_size": 317, "normalize": True})
    model.tokenizer = load_tokenizer(str(kitchen.root / "tokenizer"))
    torch.testing.assert_close(model.embed_text(["slice the tomato"]).norm(dim=1), torch.ones(1))
    assert model.encode_text("slice " * 100).shape == (1, 256)


def test_the_model_is_saved_and_loaded(loaded, tmp_path):
    loaded("mean_pool.py")
    model = registry.models.build({"_name": "mean_pool", "feature_dim": 4, "vocab_size": 9, "hidden_size": 3})
    model.save_pretrained(tmp_path)
    rows = torch.randn(2, 3, 4)
    torch.testing.assert_close(load_model(tmp_path).encode_video(rows), model.encode_video(rows))


def test_the_model_on_clip_pools_real_frames(loaded):
    loaded("my_plugin")
    frames, mask = torch.tensor([[[3.0, 0.0], [0.0, 4.0], [9.0, 9.0]]]), torch.tensor([[True, True, False]])
    pooled = registry.models["clip_max"].cls.pool_frames(None, frames, mask)
    torch.testing.assert_close(pooled, torch.tensor([[0.6, 0.8]]))


def test_the_loss_is_zero_beyond_the_margin(loaded):
    """Vectors that are each other's match, one apart from the others, at the margin and at twice the margin."""
    loaded("my_plugin")
    assert registry.criterions.build({"_name": "hinge"})(torch.eye(3), torch.eye(3)).item() == 0
    assert registry.criterions.build({"_name": "hinge", "margin": 2.0})(torch.eye(3), torch.eye(3)).item() == 1


def test_the_sampler_shows_every_video_in_blocks(loaded):
    loaded("my_plugin")
    sampler = registry.samplers.build({"_name": "blocks", "cluster_size": 4}, num_videos=10, seed=1)
    blocks = sampler.clusters(3, None)
    assert blocks.shape == (sampler.num_clusters, 4)
    assert set(blocks.ravel()) == set(range(10))
    assert (blocks[:, 1] - blocks[:, 0]).tolist() == [1, 1, 1]


def titles(kitchen, path):
    """A CSV file with a title for each training video."""
    rows = [f"{video},slice the tomato {number}" for number, video in enumerate(video_ids(kitchen))]
    path.write_text("\n".join(["video_id,title", *rows]))
    return path


def video_ids(kitchen):
    return (kitchen.root / "train.txt").read_text().split()


def data_of(kitchen):
    return {"features": str(kitchen.features), "tokenizer": str(kitchen.root / "tokenizer")}


def test_the_data_set_returns_the_same_clips_for_the_same_cluster(loaded, kitchen, tmp_path):
    loaded("my_plugin")
    config = {"_name": "titled_videos", "splits": {"train": str(titles(kitchen, tmp_path / "train.csv"))}}
    dataset = registry.datasets.build(config | data_of(kitchen), "train")
    cluster = Cluster(seed=1, epoch=1, number=0, videos=(0, 5))
    batch, again = dataset[cluster], dataset[cluster]
    assert (len(dataset), dataset.feature_dim, batch.video.shape) == (12, 512, (2, 8, 512))
    assert torch.equal(batch.video, again.video)
    assert not torch.equal(batch.video, dataset[cluster._replace(epoch=2)].video)


def test_the_corpus_and_the_task_measure_a_model(loaded, kitchen, tmp_path):
    loaded("mean_pool.py")
    loaded("my_plugin")
    videos = video_ids(kitchen)[:3]
    table = "".join(f"{video}\t0\t4\tslice the tomato\n" for video in videos)
    (tmp_path / "test.tsv").write_text(f"video\tstart\tend\tcaption\n{table}")
    dataset = {"_name": "tab_separated", "annotations": str(tmp_path / "test.tsv"), **data_of(kitchen)}
    task = registry.tasks.build({"_name": "one_of_two", "dataset": dataset})
    model = registry.models.build({"_name": "mean_pool", "vocab_size": 317})
    result = task.evaluate(model)
    assert result["num_clips"] == 3
    assert result["chance"] == {"accuracy": 0.5}
    assert 0 < result["metrics"]["accuracy"] < 1  # the captions are equal, so one clip beats the next, and one does not
    (tmp_path / "test.tsv").write_text(f"video\tstart\tend\tcaption\n{videos[0]}\t4\t4\tslice\n")
    with pytest.raises(ValueError, match=r"test.tsv:2: 0 <= start < end must hold"):
        registry.tasks.build({"_name": "one_of_two", "dataset": dataset})


def test_the_encoder_describes_colors(loaded):
    loaded("my_plugin")
    encoder = registry.encoders.build({"_name": "color_grid", "cells": 2})
    frames = torch.zeros(3, encoder.fps, encoder.size, encoder.size, 3, dtype=torch.uint8)
    frames[:, :, :32, :32, 0] = 255  # the first cell is red
    rows = encoder(frames)
    assert rows.shape == (3, encoder.feature_dim)
    assert rows[0].tolist() == [1.0] + [0.0] * 11


def test_the_store_gives_what_a_store_in_memory_gives(loaded, tmp_path):
    loaded("my_plugin")
    store = store_of(f"npz+{tmp_path}/collection")
    assert not store.exists()
    store.create({"window": 6}, width=WIDTH)
    assert store_of(f"npz+{tmp_path}/collection").settings() == {"window": 6}
    run_operations(store, np.random.default_rng(0), steps=60)


def test_the_project_replaces_the_loss_of_the_project_that_it_builds_on(folder):
    criterion = plain(load_project(str(folder / "projects" / "my_project.yaml")))["criterion"]
    assert criterion == {"_name": "sigmoid", "temperature": 0.07}


@pytest.mark.slow
@pytest.mark.fairseq
def test_a_newcomers_model_trains_is_evaluated_and_searches(folder, loaded, kitchen, monkeypatch, capsys):
    """The commands of the page, but for the size of the data; the first in a process of its own, in two ranks."""
    encoder = "{_name: s3d, size: 32, fps: 4}"
    train, evaluate, convert, index, search = (
        [word.replace("data/toy_kitchen", str(kitchen.root)).replace("efficientnet_lite0", encoder) for word in words]
        for words in commands(PAGES / "index.md")
        if words[0] == "mmpt"
    )
    small = [
        f"task.dataset.splits.train={kitchen.shards}", "model.feature_dim=512", "sampler.cluster_size=4",
        "sampler.num_neighbors=8", "optimization.max_epoch=1", "distributed_training.distributed_world_size=2",
    ]  # fmt: skip
    trained = run(*train, *small, cwd=folder, MMPT_USER_DIR="mean_pool.py")
    assert f"--user-dir {folder / 'mean_pool.py'}" in trained.stdout
    monkeypatch.chdir(folder)
    data = [f"task.dataset.{key}={value}" for key, value in data_of(kitchen).items()]
    data.append(f"task.dataset.annotations={kitchen.root}/test_clips.jsonl")
    with monkeypatch.context() as without:  # another test may have loaded it
        without.delitem(registry.models._entries, "mean_pool", raising=False)
        assert main([*evaluate[1:], *data]) == 2
    assert f"it was trained with --user-dir {folder / 'mean_pool.py'}" in capsys.readouterr().err
    loaded("mean_pool.py")
    assert main([*evaluate[1:], *data, "--json", "result.json"]) == 0
    assert json.loads((folder / "result.json").read_text())["metrics"]["t2v_recall@10"] > 0
    assert main(convert[1:]) == 0
    one_video = kitchen.root / "videos" / f"{video_ids(kitchen)[0]}.mp4"
    assert main(["index", str(one_video), *index[3:]]) == 0
    assert main(search[1:]) == 0
    assert "toy_" in capsys.readouterr().out


@pytest.fixture(scope="module")
def site(folder, tmp_path_factory):
    """A folder in which the examples are installed."""
    site = tmp_path_factory.mktemp("site")
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    run(*pip, "--target", site, folder)
    return site


@pytest.mark.slow
def test_every_example_works_from_an_installed_package(kitchen, site):
    """The tests above, in a process that finds the components of all eight kinds by their entry point."""
    words = ["-q", "-p", "no:cacheprovider", "-m", "not slow", __file__]
    environment = {"PYTHONPATH": f"{site}:{ROOT}", INSTALLED: str(site), KITCHEN: str(kitchen.root)}
    run(sys.executable, "-m", "pytest", *words, **environment)


@pytest.mark.slow
@pytest.mark.fairseq
def test_the_examples_train_from_an_installed_package(site, folder, kitchen, tmp_path):
    """Data set, sampler and loss together, with a worker that loads clips."""
    titles(kitchen, tmp_path / "train.csv")
    words = [
        "videoclip/toy_kitchen", f"task={folder}/tasks/my_titles.yaml", "criterion._name=hinge", "criterion.margin=0.5",
        "sampler._name=blocks", "sampler.cluster_size=4", "model.feature_dim=512", "optimization.max_epoch=1",
        "task.dataset.splits.train=train.csv", f"checkpoint.save_dir={tmp_path}/run",
        *(f"task.dataset.{key}={value}" for key, value in data_of(kitchen).items()),
    ]  # fmt: skip
    run("mmpt", "train", *words, cwd=tmp_path, PYTHONPATH=f"{site}:{ROOT}")
    assert (tmp_path / "run" / "checkpoint_last.pt").is_file()


@pytest.mark.slow
def test_workers_of_an_extraction_find_the_encoder_of_a_user_directory(folder, kitchen, tmp_path):
    """They are spawned, and import the user directory themselves."""
    videos = [kitchen.root / "videos" / f"{video}.mp4" for video in video_ids(kitchen)[:2]]
    words = ["--encoder", "color_grid", "--out", "features", "--workers", "2", "--user-dir", folder / "my_plugin"]
    run("mmpt", "extract", *videos, *words, cwd=tmp_path)
    assert np.load(tmp_path / "features" / f"{videos[0].stem}.npy").shape[1] == 48
