"""What version 0.1 wrote: a checkpoint, a run's folder and a project's YAML, under keys that have new names now."""

import json
import shutil

import pytest
import torch

from mmpt_plugin import load_model, registry
from mmpt_plugin.config import load_project, plain
from tests.conftest import ROOT, run

OLD = ROOT / "tests" / "golden" / "version_0_1"
PROJECT = str(OLD / "my_project.yaml")


def test_a_checkpoint_gives_the_vectors_that_version_0_1_gave():
    model = load_model(OLD / "checkpoint_last.pt")
    expected = json.loads((OLD / "expected.json").read_text())
    features = torch.randn(2, 5, 512, generator=torch.Generator().manual_seed(0))
    text = torch.tensor([[2, 7, 8, 3]])
    with torch.no_grad():
        torch.testing.assert_close(model.encode_video(features), torch.tensor(expected["video"]))
        torch.testing.assert_close(model.encode_text(text, text > 0), torch.tensor(expected["text"]))


def test_a_project_s_old_keys_count_although_its_base_has_the_new_ones(caplog):
    sampler = plain(load_project(PROJECT)).pop("sampler")
    made = registry.samplers[sampler["_name"]].parse(sampler)
    assert (made.cluster_size, made.num_neighbors, made.distance, made.index_recall) == (3, 6, "l2", 0.9)
    assert "retrieval_augmented.clusters_from is now retrieval_augmented.num_neighbors" in caplog.text


def test_an_override_under_the_new_name_counts_more_than_the_old_key_of_a_yaml():
    sampler = plain(load_project(PROJECT, ["sampler.num_neighbors=9"]))["sampler"]
    assert registry.samplers[sampler["_name"]].parse(sampler).num_neighbors == 9


def test_the_protocol_of_an_evaluation_was_its_setting():
    words = ["task=msrvtt", "checkpoint=x", "setting=finetuned"]
    assert load_project("videoclip/zeroshot", words).protocol == "finetuned"
    assert load_project("videoclip/zeroshot", [*words, "protocol=zero_shot"]).protocol == "zero_shot"


def test_a_recipe_within_a_task_s_yaml_still_counts(tmp_path, caplog):
    """Now it is the project's; an override of the project's key counts more."""
    task = {
        "_name": "text_video_retrieval",
        "dataset": {"_name": "jsonl"},
        "finetune": {"metric": "t2v_recall@1", "videos_per_batch": 7, "epochs": 3, "criterion": {"_name": "sigmoid"}},
    }
    (tmp_path / "mine.yaml").write_text(
        "# @package _global_\ndefaults: [/projects/videoclip/finetune@_global_, {override /tasks@task: null}, _self_]\n"
        f"task: {json.dumps(task)}\n"
    )
    given = ["model.pretrained=x", "checkpoint.save_dir=y", "optimization.max_epoch=2"]
    made = plain(load_project(str(tmp_path / "mine.yaml"), given))
    assert made["sampler"] == {"_name": "uniform", "cluster_size": 7}
    assert made["criterion"] == {"_name": "sigmoid"}
    assert made["optimization"]["max_epoch"] == 2
    assert "task.finetune.epochs is now optimization.max_epoch" in caplog.text


@pytest.mark.fairseq
@pytest.mark.slow
def test_a_run_of_version_0_1_is_known_as_finished_and_can_be_trained_further(kitchen, tmp_path):
    pytest.importorskip("fairseq")
    folder = tmp_path / "run"
    folder.mkdir()
    shutil.copy(OLD / "checkpoint_last.pt", folder)
    stored = (OLD / "project.yaml").read_text().replace("RUN", str(folder)).replace("SHARDS", str(kitchen.shards))
    (folder / "project.yaml").write_text(stored)
    added = [
        "criterion.temperature",
        "model.normalize",
        "sampler.cover",
        "task.dataset.max_text_len",
        "task.dataset.max_video_len",
    ]
    words = [
        "mmpt", "train", PROJECT, f"task.dataset.splits.train={kitchen.shards}", f"checkpoint.save_dir={folder}",
        *(f"{key}=null" for key in added),
    ]  # fmt: skip
    assert "is finished: 1 epochs, 4 updates" in run(*words).stderr
    run(*words, "optimization.max_epoch=2", "--resume")
    state = torch.load(folder / "checkpoint_last.pt", weights_only=False)
    assert state["optimizer_history"][-1]["num_updates"] == 8
