"""The models on CLIP under fairseq's own trainer: two rates, criteria that take ids, checkpoints, projects."""

import json
import math

import pytest
import torch
import yaml

pytestmark = pytest.mark.fairseq
pytest.importorskip("mmpt_plugin.fairseq_bridge")

from mmpt_plugin.config import load_project, plain  # noqa: E402
from mmpt_plugin.fairseq_bridge import BackboneAdam  # noqa: E402
from mmpt_plugin.fairseq_bridge.optimizer import BackboneAdamConfig  # noqa: E402
from mmpt_plugin.fairseq_bridge.train import command_line, fairseq_config  # noqa: E402
from mmpt_plugin.models import CLIP2Video, load_model  # noqa: E402
from mmpt_plugin.models.clip import BACKBONE  # noqa: E402
from mmpt_plugin.registry import models  # noqa: E402
from mmpt_plugin.tasks.finetuning import fine_tuned  # noqa: E402
from tests.conftest import run  # noqa: E402
from tests.models.clip_family import TEXT, TINY_CLIP, transformers_model  # noqa: E402

FAMILY = ["clip_mean", "clip_lstm", "clip_transformer", "clip2video", "videoclip_vit"]
SIZES = TINY_CLIP | {"text_config": TEXT | {"vocab_size": 317, "max_position_embeddings": 48}}


@pytest.fixture
def towers(tmp_path):
    transformers_model(SIZES).save_pretrained(tmp_path / "towers")
    return tmp_path / "towers"


def project(kitchen, folder, **sections):
    """Frames of the embedded videos, 8 by 8 pixels, four of each of two clips of three videos a batch."""
    made = {
        "defaults": ["/projects/base@_global_", {"/tasks@task": "toy_kitchen"}, "_self_"],
        "task": {
            "dataset": {
                "splits": {"train": str(kitchen.shards)},
                "videos": str(kitchen.root / "videos"),
                "frames": {"num_frames": 4, "size": 8},
                "pairs_per_video": 2,
                "max_text_len": 20,
            }
        },
        "sampler": {"_name": "uniform", "cluster_size": 3},
        "dataset": {"num_workers": 0},
        "optimization": {"max_epoch": 1, "max_update": 2, "lr": [1e-2], "clip_norm": 0.0},
        "lr_scheduler": {"_name": "fixed", "warmup_updates": 0, "total_num_update": None},
        "common": {"log_format": "json", "log_interval": 1},
        "checkpoint": {"save_dir": str(folder / "run")},
    }
    for name, section in sections.items():
        made[name] = made.get(name, {}) | section
    (folder / "project.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(made, sort_keys=False)}")
    return folder / "project.yaml"


def moved(before, after):
    """How far each weight went at most."""
    return {key: float((after[key] - value).abs().max()) for key, value in before.items() if value.is_floating_point()}


@pytest.mark.slow
def test_two_updates_move_the_backbone_and_the_rest_at_their_own_rates(kitchen, towers, tmp_path):
    """Adam's first steps have the size of the learning rate; the checkpoint can be read without the CLIP weights."""
    model = {"_name": "clip2video", "clip": str(towers), "max_video_len": 4, "max_text_len": 20}
    optimizer = {"_name": "adam_with_backbone", "backbone_lr": 1e-5}
    criterion = {"_name": "nce", "parts": 2, "learn_temperature": True, "temperature": 0.5}
    path = project(kitchen, tmp_path, model=model, optimizer=optimizer, criterion=criterion)
    run("mmpt", "train", path, "common.seed=3")
    content = torch.load(tmp_path / "run" / "checkpoint_last.pt", weights_only=False)
    towers.rename(tmp_path / "gone")
    trained = load_model(tmp_path / "run" / "checkpoint_last.pt")
    assert isinstance(trained, CLIP2Video)
    assert trained.config.clip is None
    before = models["clip2video"].build(model | {"clip": str(tmp_path / "gone")})
    steps = moved(before.state_dict(), trained.state_dict())
    backbone = [step for key, step in steps.items() if key.startswith("backbone.clip.") and "logit" not in key]
    rest = [step for key, step in steps.items() if key.startswith(("difference.", "skipping."))]
    assert 1e-5 < max(backbone) <= 2.1e-5
    assert 1e-2 < max(rest) <= 2.1e-2
    assert abs(float(content["criterion"]["criterion.log_scale"]) - 0.6931) > 5e-3  # learned, at the rest's rate


@pytest.mark.slow
def test_the_recipe_of_clip4clip_through_the_trainer(kitchen, tmp_path):
    """Two updates, of which the first has rate 0: every weight makes the one step that Adam's final averages imply.

    That is without bias correction, at half of each peak rate, (1 + cos(pi / 2)) / 2, and with decay of all but biases.
    """
    model = {"backbone": SIZES, "max_video_len": 4, "max_text_len": 20}
    before = models["clip2video"].build(model)
    for weight in before.parameters():  # so that the decay of a bias would show
        torch.nn.init.normal_(weight, std=0.3)
    before.save_pretrained(tmp_path / "start")
    recipe = plain(load_project("clip2video/finetune", ["checkpoint.save_dir=x"]))
    path = project(
        kitchen, tmp_path,
        model={"_name": "clip2video", "pretrained": str(tmp_path / "start"), "max_video_len": 4, "max_text_len": 20}
        | {"freeze_layers": recipe["model"]["freeze_layers"]},
        criterion=recipe["criterion"] | {"temperature": 100.0},
        optimizer=recipe["optimizer"] | {"backbone_lr": 1e-2},
        optimization={"lr": [1e-1], "clip_norm": recipe["optimization"]["clip_norm"]},
        lr_scheduler=recipe["lr_scheduler"],
    )  # fmt: skip
    run("mmpt", "train", path)
    content = torch.load(tmp_path / "run" / "checkpoint_last.pt", weights_only=False)
    after = load_model(tmp_path / "run" / "checkpoint_last.pt").state_dict()
    state = content["last_optimizer_state"]
    assert [group["weight_decay"] for group in state["param_groups"]] == [0.2, 0, 0.2, 0]

    trained = {key: weight for key, weight in before.named_parameters() if weight.requires_grad}
    frozen = {key for key in trained if ".embeddings." in key or "pre_layrnorm" in key}
    assert len(frozen) == 7
    assert all(torch.equal(after[key], trained[key]) for key in frozen)
    kinds = [(in_backbone, bias) for in_backbone in (False, True) for bias in (False, True)]
    groups = {
        kind: [key for key in trained if kind == (key.startswith("backbone."), "bias" in key) and key not in frozen]
        for kind in kinds
    }
    numbers = iter(range(len(trained)))
    for (in_backbone, bias), keys in groups.items():
        rate, decay = (5e-3 if in_backbone else 5e-2), (0 if bias else 0.2)
        for key in keys:
            averages, weight = state["state"][next(numbers)], trained[key].detach()
            step = averages["exp_avg"] / (averages["exp_avg_sq"].sqrt() + 1e-6) + decay * weight
            torch.testing.assert_close(after[key] - weight, -rate * step, rtol=1e-3, atol=1e-6)
    assert len(state["state"]) == len(trained) - len(frozen)

    # Almost equal similarities of 6 pairs cost log(6) per direction, of which the loss is the mean.
    lines = [line for line in (tmp_path / "run" / "train.log").read_text().splitlines() if line.startswith('{"epoch"')]
    losses = [float(json.loads(line)["loss"]) for line in lines if '"loss":' in line]
    assert losses == pytest.approx([math.log(6)] * 2, abs=0.02)

    run("mmpt", "train", path, "optimization.max_update=3", "--resume")
    content = torch.load(tmp_path / "run" / "checkpoint_last.pt", weights_only=False)
    assert content["optimizer_history"][-1]["num_updates"] == 3
    assert [group["weight_decay"] for group in content["last_optimizer_state"]["param_groups"]] == [0.2, 0, 0.2, 0]
    assert all(torch.equal(content["model"][f"model.{key}"], trained[key]) for key in frozen)


@pytest.mark.slow
@pytest.mark.parametrize("criterion", ["best_fit_nce", "mil_nce", "sigmoid"])
def test_criteria_over_candidates_train_a_vit_in_chunks(kitchen, tmp_path, criterion):
    sizes = {"backbone": SIZES, "max_video_len": 4, "max_text_len": 20, "embedding_dim": 8, "chunk_size": 4}
    path = project(
        kitchen, tmp_path, model={"_name": "videoclip_vit", **sizes}, criterion={"_name": criterion},
        optimizer={"_name": "adam_with_backbone", "backbone_lr": 1e-3},
    )  # fmt: skip
    run("mmpt", "train", path)
    lines = [
        json.loads(line[line.index("{") :])
        for line in (tmp_path / "run" / "train.log").read_text().splitlines()
        if line.startswith('{"epoch"') and '"loss":' in line
    ]
    assert len(lines) == 2
    name = "v2t_recall@1" if criterion == "sigmoid" else "t2v_recall@1"
    assert all(float(line["loss"]) > 0 and 0 <= float(line[name]) <= 1 for line in lines)


def optimizer(backbone_lr, lr=1e-3):
    weights = [torch.nn.Parameter(torch.zeros(2)) for _ in range(3)]
    weights[1].param_group = BACKBONE
    return BackboneAdam(
        BackboneAdamConfig(lr=[lr], adam_betas="(0.9, 0.98)", backbone_lr=backbone_lr), weights
    ), weights


def test_every_schedule_keeps_the_ratio_of_rates():
    made, weights = optimizer(1e-5)
    made.set_lr(5e-4)
    rates = {id(weight): group["lr"] for group in made.param_groups for weight in group["params"]}
    assert [rates[id(weight)] for weight in weights] == pytest.approx([5e-4, 5e-6, 5e-4])
    assert made.get_lr() == pytest.approx(5e-4)


def test_a_resumed_run_takes_its_own_rates():
    before, _ = optimizer(1e-5)
    after, _ = optimizer(1e-4)
    after.load_state_dict(before.state_dict())
    after.set_lr(1e-3)
    assert [group["lr"] for group in after.param_groups] == pytest.approx([1e-3, 1e-4])


def test_weights_flattened_by_fp16_are_an_error():
    with pytest.raises(ValueError, match=r"needs common.fp16_no_flatten_grads=true"):
        BackboneAdam(BackboneAdamConfig(lr=[1e-3]), [torch.nn.Parameter(torch.zeros(2))])


@pytest.mark.parametrize("name", FAMILY)
@pytest.mark.parametrize("task", ["msrvtt_9k", "msvd", "vatex", "lsmdc", "didemo", "activitynet"])
def test_the_recipes_are_whole_projects(name, task):
    made = fine_tuned(plain(load_project(f"{name}/finetune", [f"task={task}", "checkpoint.save_dir=runs/x"])))
    fairseq_config(made)  # knows every key
    dataset, model = made["task"]["dataset"]["splits"], made["model"]
    long = task in ("didemo", "activitynet") and name != "videoclip_vit"
    frames = {"num_frames": 64 if long else 12, "size": 224, "sampling": "clip4clip", "feature_framerate": 1}
    if name == "videoclip_vit":
        frames |= {"num_frames": 16, "sampling": "uniform"}
    if name == "clip2video":
        frames |= {"sampling": "clip2video", "feature_framerate": 2 if task in ("msrvtt_9k", "lsmdc") else 1}
    assert dataset["train"]["frames"] == dataset["valid"]["frames"] == frames
    assert made["task"]["dataset"]["max_video_len"] == frames["num_frames"]
    assert model.get("max_text_len", 30) == (62 if long else 30)
    assert dataset["train"]["tokenizer"] == model["clip"] == "openai/clip-vit-base-patch32"
    assert models[name].parse(model | {"clip": None}).max_video_len == frames["num_frames"]
    if name == "clip2video":
        assert models[name].parse(model | {"clip": None}).num_centers == (7 if task == "vatex" else 5)
    scheduler = "cosine" if name == "videoclip_vit" else "warmup_cosine"
    assert f"--lr-scheduler {scheduler} " in command_line(made)


@pytest.mark.parametrize("name", [name for name in FAMILY if name != "videoclip_vit"])
def test_the_recipe_is_clip4clips(name):
    """Two rates, whether or not a model adds layers to CLIP."""
    made = plain(load_project(f"{name}/finetune", ["checkpoint.save_dir=runs/x"]))
    assert made["optimizer"] == {
        "_name": "adam_with_backbone",
        "backbone_lr": 1e-7,
        "adam_betas": "(0.9, 0.98)",
        "adam_eps": 1e-6,
        "weight_decay": 0.2,
        "no_bias_decay": True,
        "no_bias_correction": True,
    }
    assert made["optimization"] == {"max_epoch": 5, "lr": [1e-4], "clip_norm": 1.0}
    schedule = {"_name": "warmup_cosine", "warmup_fraction": 0.1, "warmup_updates": None}
    assert made["lr_scheduler"] == schedule
    assert made["criterion"] == {"_name": "nce", "temperature": 0.01, "average_directions": True} | (
        {"parts": 2} if name == "clip2video" else {}
    )
    assert made["sampler"]["cluster_size"] == 128
    assert made["model"]["freeze_layers"] == 0


def test_a_vit_has_a_recipe_of_its_own():
    made = plain(load_project("videoclip_vit/finetune", ["checkpoint.save_dir=runs/x"]))
    config = fairseq_config(fine_tuned(made))
    optimizer = config.optimizer
    assert (optimizer.backbone_lr, optimizer.adam_eps, optimizer.weight_decay) == (1e-6, 1e-8, 0)
    assert not optimizer.no_bias_decay
    assert not optimizer.no_bias_correction
    assert not config.criterion.average_directions
    assert made["model"]["freeze_layers"] is None


@pytest.mark.parametrize("name", FAMILY)
def test_frozen_features_take_the_place_of_frames(name):
    overrides = ["task.dataset.frames=null", "model.freeze_vision=true", "checkpoint.save_dir=runs/x"]
    made = fine_tuned(plain(load_project(f"{name}/finetune", overrides)))
    fairseq_config(made)
    assert made["task"]["dataset"]["splits"]["train"]["frames"] is None


@pytest.mark.parametrize("name", FAMILY)
def test_the_embedded_data_has_projects_too(name, tmp_path):
    made = plain(load_project(f"{name}/toy_kitchen", []))
    fairseq_config(made)
    model = models[name].build(made["model"])
    assert model.config.image_size == made["task"]["dataset"]["frames"]["size"] == 64
    assert model.config.vocab_size == 317
    plain(load_project(f"{name}/evaluate", [f"checkpoint={tmp_path}", "task=msvd"]))


@pytest.mark.slow
def test_a_checkpoint_is_evaluated_by_its_name_alone(kitchen, tmp_path):
    """`mmpt evaluate` builds whichever model the folder names, over frames and over features."""
    clips = [
        {"video_id": path.stem, "start": 0.0, "end": 4.0, "caption": "chop the tomato"}
        for path in sorted((kitchen.root / "videos").glob("*.mp4"))[:2]
    ]
    (tmp_path / "clips.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in clips))
    dataset = {
        "_name": "jsonl",
        "annotations": str(tmp_path / "clips.jsonl"),
        "tokenizer": str(kitchen.root / "tokenizer"),
        "videos": str(kitchen.root / "videos"),
        "frames": {"num_frames": 4, "size": 8},
    }
    torch.manual_seed(0)
    settings = {"backbone": SIZES, "max_video_len": 4, "max_text_len": 20}
    models["clip2video"].build(settings).save_pretrained(tmp_path / "trained")
    made = {"task": {"_name": "text_video_retrieval", "dataset": dataset}, "checkpoint": str(tmp_path / "trained")}
    (tmp_path / "project.yaml").write_text(f"# @package _global_\n{yaml.safe_dump(made)}")
    run("mmpt", "evaluate", tmp_path / "project.yaml", "--json", tmp_path / "result.json")
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["num_clips"] == 2
    assert 0 <= result["metrics"]["t2v_recall@1"] <= 1
