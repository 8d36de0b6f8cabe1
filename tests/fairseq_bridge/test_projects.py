"""Every project that trains, at a tiny size: two updates on two processes, as fairseq runs them."""

import json

import pytest
import torch

pytest.importorskip("fairseq")

from mmpt_plugin.config import available, load_project, plain
from mmpt_plugin.fairseq_bridge.train import RankInfo, fairseq_config, free_port, run_fairseq
from mmpt_plugin.tasks.finetuning import fine_tuned
from tests.conftest import TINY_MODEL
from tests.ranks import on_ranks

pytestmark = [pytest.mark.slow, pytest.mark.fairseq]

VISION = {"hidden_size": 16, "num_attention_heads": 2, "num_hidden_layers": 1, "intermediate_size": 32}
TEXT = VISION | {"num_hidden_layers": 4, "vocab_size": 317, "max_position_embeddings": 40}
BACKBONE = {
    "projection_dim": 16,
    "vision_config": VISION | {"image_size": 8, "patch_size": 4},
    "text_config": TEXT | {"bos_token_id": 2, "eos_token_id": 3},
}


def training_projects() -> list[str]:
    """All but videoclip/finetune itself, which needs a task.

    The recipes for benchmarks with one clip per video differ in numbers only, so two of them train here. Those on
    windows of a video train in test_finetuning.py.
    """
    finetuned = ("videoclip/finetune/msrvtt", "videoclip/finetune/msrvtt_qa", "clip2video/finetune/vatex")
    return [
        name
        for name in available("projects")
        if name not in ("base", "videoclip/finetune")
        and not name.endswith(("/evaluate", "/zeroshot"))
        and ("/finetune/" not in name or name in finetuned)
    ]


def tiny(name, kitchen, folder):
    """A project as it is, but for its sizes and its data."""
    finetune = "/finetune" in name
    given = ["model.pretrained=x"] if name.startswith(("videoclip/finetune", "videoclip/continue")) else []
    given += ["task.dataset.splits.train=x"] if name in ("videoclip/continue", "videoclip/small") else []
    project = plain(load_project(name, [f"checkpoint.save_dir={folder}/{name.replace('/', '_')}", *given]))
    model = project["model"] | {"pretrained": None}
    if model["_name"] == "videoclip":
        model |= TINY_MODEL | {"bert": None}
    else:
        model |= {"clip": None, "backbone": BACKBONE, "max_video_len": 2, "max_text_len": 20}
    if finetune:
        data = project["task"]["dataset"]
        own = {
            "_name": "jsonl",
            "annotations": f"{folder}/train.jsonl",
            "features": str(kitchen.features),
            "videos": str(kitchen.root / "videos"),
            "frames": data.get("frames") and data["frames"] | {"num_frames": 2, "size": 8},
            "tokenizer": str(kitchen.root / "tokenizer"),
        }
        recipe = project["task"]["finetune"]
        if recipe.pop("benchmark", None):  # the task itself can't be measured on validation videos
            project["task"]["_name"] = "text_video_retrieval"
        recipe["dataset"] |= {
            "repeat": 2,
            "splits": {"train": own, "valid": own | {"annotations": f"{folder}/valid.jsonl"}},
        }
        project["task"] |= {"dataset": own}
        project["sampler"]["cluster_size"] = 3
    else:
        data = project["task"]["dataset"] | {"splits": {"train": str(kitchen.shards)}, "pairs_per_video": 2}
        data |= {"videos": str(kitchen.root / "videos"), "verify_checksums": True}
        if data.get("frames"):
            data |= {"frames": {"num_frames": 2, "size": 8}, "max_text_len": 20}
        project["task"]["dataset"] = data
        project["sampler"] |= {"cluster_size": 3}
        if project["sampler"]["_name"] == "retrieval_augmented":
            project["sampler"]["num_neighbors"] = 6
    project["model"] = model
    project["optimization"] |= {"max_update": 2}
    project["dataset"] |= {"num_workers": 0}
    project["common"] |= {"log_interval": 1, "log_file": None}
    if not project["common"].get("fp16_no_flatten_grads"):  # the optimizer that flattens needs a GPU
        project["common"] |= {"fp16": False}
    project["checkpoint"] |= {"save_interval_updates": 0}
    return fine_tuned(project)


def run_rank(rank, projects, init_method):
    """All projects one after the other in the same two processes, whose start is what takes long."""
    from fairseq.distributed import utils as distributed_utils

    for project in projects:
        config = fairseq_config(RankInfo(rank, 2, device=rank, init_method=init_method).apply_to(project))
        distributed_utils.call_main(config, run_fairseq)


def test_every_project_makes_two_updates_on_two_processes(kitchen, tmp_path):
    clips = [
        {"video_id": path.stem, "start": 0.0, "end": 4.0, "caption": "chop the tomato"}
        for path in sorted((kitchen.root / "videos").glob("*.mp4"))
    ]
    for split, own in (("train", clips[:12]), ("valid", clips[12:])):
        (tmp_path / f"{split}.jsonl").write_text("".join(json.dumps(clip) + "\n" for clip in own))
    names = training_projects()
    projects = [tiny(name, kitchen, tmp_path) for name in names]
    on_ranks(run_rank, 2, projects, f"tcp://localhost:{free_port()}")
    for project in projects:
        content = torch.load(f"{project['checkpoint']['save_dir']}/checkpoint_last.pt", weights_only=False)
        assert content["optimizer_history"][-1]["num_updates"] == 2
        assert all(torch.isfinite(value).all() for value in content["model"].values() if value.is_floating_point())
