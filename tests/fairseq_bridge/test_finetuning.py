"""`mmpt train videoclip/finetune` on small benchmarks: from a pre-trained checkpoint, validated by the benchmark."""

import json

import numpy as np
import pytest
import torch
import yaml

pytestmark = pytest.mark.fairseq
pytest.importorskip("mmpt_plugin.fairseq_bridge")

from mmpt_plugin import VideoCLIP  # noqa: E402
from mmpt_plugin.config import load_project, plain  # noqa: E402
from mmpt_plugin.fairseq_bridge.train import command_line, fairseq_config  # noqa: E402
from mmpt_plugin.features.files import write_features  # noqa: E402
from mmpt_plugin.models import VideoCLIPConfig, VideoCLIPSegmenter, VideoCLIPStepLocalizer  # noqa: E402
from mmpt_plugin.tasks.finetuning import fine_tuned  # noqa: E402
from tests.conftest import TINY_MODEL, run  # noqa: E402
from tests.tasks.golden import ENDTASK  # noqa: E402

TINY = TINY_MODEL | {"feature_dim": 8, "vocab_size": 317}


@pytest.fixture
def data(tmp_path, kitchen):
    """Two kinds of second, along either axis, that only features tell apart; and a pre-trained VideoCLIP."""
    torch.manual_seed(0)
    VideoCLIP(VideoCLIPConfig(**TINY)).save_pretrained(tmp_path / "pretrained")
    (tmp_path / "features").mkdir()
    rng = np.random.default_rng(0)
    clips, database = [], {}
    for number in range(8):
        kinds = rng.integers(0, 2, 10)
        rows = np.eye(8)[kinds] * 4
        write_features(tmp_path / "features" / f"v{number}.npy", rows.astype(np.float16))
        segments = [
            {"id": "1", "segment": [i, i + 1], "label": "chop"} for i, kind in enumerate(kinds.tolist()) if kind
        ]
        database[f"v{number}"] = {"subset": "training" if number < 5 else "testing", "annotation": segments}
        clips.append(
            {"video_id": f"v{number}", "start": 0, "end": 10, "caption": f"chop {'the' if number % 2 else 'a'}"}
        )
    (tmp_path / "COIN.json").write_text(json.dumps({"database": database}))
    for split, part in (("train", clips[:5]), ("valid", clips[5:])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in part))
    return tmp_path


def corpus(data, kitchen, name, annotations, **options):
    files = {"annotations": str(data / annotations), "features": str(data / "features")}
    return {"_name": name, **files, "tokenizer": str(kitchen.root / "tokenizer"), **options}


def finetune(data, task, *overrides, recipe, **options):
    """A user's own project: the package's, with a task and a recipe of their own."""
    project = {
        "defaults": ["/projects/videoclip/finetune@_global_", {"override /tasks@task": None}, "_self_"],
        "task": task,
        "model": TINY | {"_name": recipe.pop("model", "videoclip")},
        "sampler": {"cluster_size": recipe.pop("cluster_size")},
        "optimization": {"max_epoch": recipe.pop("epochs")},
        **recipe,
    }
    (data / "project.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(project, sort_keys=False)}")
    return run(
        "mmpt", "train", data / "project.yaml", f"model.pretrained={data}/pretrained", "common.fp16=false",
        f"checkpoint.save_dir={data}/run", "dataset.num_workers=0", "common.log_format=json", *overrides,
        **options,
    )  # fmt: skip


def validations(done):
    """What fairseq printed of each validation, as JSON."""
    return [
        json.loads(line) for line in done.stderr.splitlines() if line.startswith('{"epoch"') and "valid_loss" in line
    ]


@pytest.mark.slow
def test_retrieval_is_validated_by_its_own_metric(data, kitchen):
    task = {
        "_name": "text_video_retrieval",
        "dataset": corpus(data, kitchen, "jsonl", "valid.jsonl"),
        "finetune": {
            "dataset": {
                "_name": "captioned_clips",
                "splits": {split: corpus(data, kitchen, "jsonl", f"{split}.jsonl") for split in ("train", "valid")},
            },
            "metric": "t2v_recall@1",
        },
    }
    recipe = {"cluster_size": 5, "epochs": 2, "criterion": {"_name": "nce", "directions": "text_to_video"}}
    measured = validations(finetune(data, task, recipe=recipe))
    assert [line["epoch"] for line in measured] == [1, 2]
    assert all(0 <= float(line["valid_t2v_recall@5"]) <= 1 for line in measured)
    assert float(measured[-1]["valid_best_t2v_recall@1"]) == max(float(m["valid_t2v_recall@1"]) for m in measured)
    assert isinstance(VideoCLIP.from_pretrained(data / "run" / "checkpoint_best.pt"), VideoCLIP)


@pytest.mark.slow
def test_validation_on_training_videos_is_refused_before_training(data, kitchen):
    task = {
        "_name": "text_video_retrieval",
        "dataset": corpus(data, kitchen, "jsonl", "train.jsonl"),
        "finetune": {
            "dataset": {"_name": "captioned_clips", "splits": {"train": {}, "valid": {}}},
            "metric": "t2v_recall@1",
        },
    }
    done = finetune(data, task, recipe={"cluster_size": 5, "epochs": 1}, check=False)
    assert done.returncode == 2
    assert "split 'valid' has 5 of its 5 videos in common with split 'train', such as v0, v1" in done.stderr
    assert "Traceback" not in done.stderr
    assert not list((data / "run").glob("*.pt"))


@pytest.mark.slow
def test_segmentation_learns_labels_that_features_tell(data, kitchen):
    """A second's label is its feature, so a few epochs are enough to know labels in unseen videos.

    The classifier is wider than the labels, as the original's.
    """
    testing = corpus(data, kitchen, "coin", "COIN.json", allow_overlap=True)
    task = {
        "_name": "action_segmentation",
        "dataset": testing,
        "finetune": {
            "dataset": {
                "_name": "labelled_windows",
                "splits": {"train": {"split": "train"}, "valid": {}},
            },
            "metric": "frame_accuracy",
        },
    }
    overrides = ["model.num_labels=4", "optimization.lr=[0.01]", "optimizer.lr=[0.01]", "lr_scheduler.lr=[0.01]"]
    recipe = {"model": "videoclip_segmenter", "cluster_size": 1, "epochs": 12}
    recipe["criterion"] = {"_name": "frame_cross_entropy"}
    measured = validations(finetune(data, task, *overrides, "lr_scheduler.warmup_updates=1", recipe=recipe))
    assert float(measured[-1]["valid_frame_accuracy"]) == 1.0
    assert float(measured[-1]["valid_macro_f1"]) == 1.0
    checkpoint = data / "run" / "checkpoint_best.pt"
    assert isinstance(VideoCLIP.from_pretrained(checkpoint), VideoCLIPSegmenter)
    done = run("mmpt", "evaluate", data / "project.yaml", f"checkpoint={checkpoint}", "model.pretrained=x", check=False)
    assert done.returncode == 2  # a training project is not an evaluation
    assert "evaluation does not use section" in done.stderr


@pytest.mark.slow
def test_step_localization_trains_on_recorded_annotations(data, kitchen):
    """The official format of CrossTask; 512-d features."""
    folder = ENDTASK / "crosstask"
    testing = {
        "_name": "crosstask",
        "annotations": str(folder / "crosstask_release"),
        "features": str(folder / "features"),
        "tokenizer": str(kitchen.root / "tokenizer"),
        "num_train": 3,
        "allow_missing": True,
    }
    task = {
        "_name": "step_localization",
        "dataset": testing,
        "finetune": {
            "dataset": {
                "_name": "step_windows",
                "splits": {"train": {"split": "train"}, "valid": {}},
            },
            "metric": "average_recall",
        },
    }
    torch.manual_seed(0)
    VideoCLIP(VideoCLIPConfig(**TINY_MODEL)).save_pretrained(data / "pretrained")
    recipe = {"model": "videoclip_step_localizer", "cluster_size": 1, "epochs": 2}
    recipe["criterion"] = {"_name": "step_cross_entropy"}
    measured = validations(finetune(data, task, "model.feature_dim=512", recipe=recipe))
    assert [line["epoch"] for line in measured] == [1, 2]
    assert all(0 <= float(line["valid_average_recall"]) <= 1 for line in measured)
    assert isinstance(VideoCLIP.from_pretrained(data / "run" / "checkpoint_best.pt"), VideoCLIPStepLocalizer)


RECIPES = ["msrvtt", "msrvtt_7k", "msrvtt_9k", "msrvtt_full", "msrvtt_qa", "msrvtt_qa_7k", "msvd", "vatex", "vatex_1k5"]
RECIPES += ["didemo", "lsmdc", "activitynet", "youcook2", "coin", "crosstask"]


@pytest.mark.parametrize("name", RECIPES)
def test_the_benchmarks_own_recipes_are_whole_projects(name):
    overrides = [f"task={name}", "model.pretrained=somewhere", "checkpoint.save_dir=runs/x"]
    project = fine_tuned(plain(load_project("videoclip/finetune", overrides)))
    fairseq_config(project)  # knows every key
    assert project["task"]["benchmark"]["dataset"] == project["task"]["dataset"]["splits"]["valid"]
    assert "--best-checkpoint-metric" in command_line(project)
