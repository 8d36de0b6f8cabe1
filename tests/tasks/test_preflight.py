"""What a training needs is checked without training: each thing that would stop it is one line."""

import pytest

from mmpt_plugin.tasks.preflight import examine, num_checkpoints, problems
from tests.conftest import TINY_MODEL


@pytest.fixture
def project(kitchen, tmp_path):
    return {
        "model": {"_name": "videoclip", **TINY_MODEL},
        "task": {
            "_name": "video_text_pretraining",
            "dataset": {"_name": "overlapped_clips", "splits": {"train": str(kitchen.shards)}},
        },
        "sampler": {"_name": "uniform", "cluster_size": 4},
        "dataset": {"disable_validation": True},
        "optimization": {"max_epoch": 3},
        "checkpoint": {"save_dir": str(tmp_path / "run")},
    }


def test_a_complete_project_has_no_problems(project, tmp_path):
    lines = [finding.line for finding in examine(project).findings]
    assert list(problems(project)) == []
    assert lines[0] == "train: 12 videos"
    assert lines[1].startswith("model videoclip: ")
    assert not (tmp_path / "run").exists(), "nothing is written"


def test_missing_shards_are_named_with_their_source(project, tmp_path):
    project["task"] |= {"source": "https://example.org"}
    project["task"]["dataset"]["splits"] = {"train": str(tmp_path)}
    assert list(problems(project)) == [
        f"train: no shards in {tmp_path}: it has no index.json. Source: https://example.org"
    ]


def test_too_few_videos_for_a_cluster_are_named(project):
    project["sampler"]["cluster_size"] = 16
    assert list(problems(project)) == ["train: sampler.cluster_size is 16, but the split has only 12 videos"]


def test_a_model_that_does_not_fit_the_data_is_named(project):
    project["model"]["feature_dim"] = 64
    (problem,) = problems(project)
    assert problem == "model: split 'train' has features of width 512, but the model expects features of width 64"


@pytest.mark.parametrize(
    ("name", "line"),
    [
        ("/nowhere/weights.pt", "model.pretrained: there is no file or folder /nowhere/weights.pt"),
        (
            "nobody/nothing-of-this-name",
            "model.pretrained: nobody/nothing-of-this-name is not a folder here, nor in the cache of the Hugging Face "
            "hub; to download it: hf download nobody/nothing-of-this-name",
        ),
    ],
)
def test_missing_weights_are_named(project, name, line):
    project["model"]["pretrained"] = name
    assert list(problems(project)) == [line]


def test_the_tokenizers_of_a_benchmark_are_checked(project, kitchen):
    project["dataset"]["disable_validation"] = False
    project["task"]["benchmark"] = {
        "_name": "text_video_retrieval",
        "dataset": {
            "_name": "jsonl",
            "annotations": str(kitchen.root / "test_clips.jsonl"),
            "features": str(kitchen.features),
            "tokenizer": "/nowhere",
        },
    }
    assert "tokenizer: there is no file or folder /nowhere" in list(problems(project))


def test_videos_for_both_training_and_validation_are_named(project, kitchen):
    project["dataset"]["disable_validation"] = False
    project["task"]["dataset"]["splits"]["valid"] = str(kitchen.shards)
    (problem,) = problems(project)
    assert problem.startswith("valid: split 'valid' has 12 of its 12 videos in common with split 'train'")


def test_a_file_in_the_place_of_the_run_is_named(project, tmp_path):
    (tmp_path / "run").touch()
    (problem,) = problems(project)
    assert problem.endswith(f"{tmp_path / 'run'} is not a folder that can be written")


def test_a_disk_without_space_for_the_checkpoints_is_named(project, monkeypatch):
    monkeypatch.setattr("shutil.disk_usage", lambda path: type("Usage", (), {"free": 1000})())
    (problem,) = problems(project)
    assert "0.0 GiB free, 4 checkpoints need" in problem


@pytest.mark.parametrize(
    ("checkpoint", "validates", "number"),
    [
        ({}, False, 4),
        ({}, True, 5),
        ({"no_epoch_checkpoints": True}, False, 1),
        ({"keep_last_epochs": 2}, True, 4),
        ({"save_interval": 3, "keep_interval_updates": 2}, False, 4),
    ],
)
def test_checkpoints_that_are_kept_are_counted(checkpoint, validates, number):
    """Three epochs: the last, perhaps the best, and those of epochs and updates that are kept."""
    project = {
        "checkpoint": checkpoint,
        "optimization": {"max_epoch": 3},
        "dataset": {"disable_validation": not validates},
    }
    assert num_checkpoints(project) == number
