"""Eight updates of the original's pre-training, recorded in double precision, taken again by fairseq's own trainer."""

import json

import pytest
import torch

pytestmark = pytest.mark.fairseq
pytest.importorskip("mmpt_plugin.fairseq_bridge")

from fairseq.logging import metrics  # noqa: E402

from mmpt_plugin import VideoCLIP  # noqa: E402
from mmpt_plugin.fairseq_bridge.train import fairseq_config  # noqa: E402
from tests.models.test_videoclip import CASES, GOLDEN, text_of  # noqa: E402

RECORDED = json.loads((GOLDEN / "trajectory" / "trajectory.json").read_text())
FINAL = torch.load(GOLDEN / "trajectory" / "final_state_dict_f64.pt", weights_only=True)
SHAPE = {
    "hidden_size": 32,
    "num_attention_heads": 2,
    "intermediate_size": 64,
    "num_video_layers": 2,
    "num_text_layers": 3,
    "vocab_size": 100,
    "max_video_len": 8,
    "dropout": 0.0,
}


def trainer(save_dir, dtype):
    from fairseq import criterions, tasks
    from fairseq.trainer import Trainer

    given = RECORDED["hparams"]
    config = fairseq_config(
        {
            "task": {"_name": "video_text_pretraining", "dataset": {"_name": "overlapped_clips"}},
            "model": {"_name": "videoclip", **SHAPE},
            "criterion": {"_name": "nce"},
            "optimization": {"lr": [given["lr"]], "clip_norm": given["clip_norm"]},
            "optimizer": {
                "_name": "adam",
                "adam_betas": str(tuple(given["betas"])),
                "adam_eps": given["eps"],
                "weight_decay": given["weight_decay"],
                "lr": [given["lr"]],
            },
            "lr_scheduler": {
                "_name": "polynomial_decay",
                "lr": [given["lr"]],
                "warmup_updates": given["warmup_updates"],
                "total_num_update": given["total_num_update"],
            },
            "checkpoint": {"save_dir": str(save_dir)},
        }
    )
    task = tasks.setup_task(config.task)
    model = task.build_model(config.model)
    released = VideoCLIP.from_pretrained(
        GOLDEN / "videoclip_released_layout.pt", num_attention_heads=2, max_video_len=8
    )
    model.model.load_state_dict(released.state_dict())
    criterion = criterions.build_criterion(config.criterion, task)  # the task would open its data here, and has none
    made = Trainer(config, task, model.to(dtype), criterion)
    # The trainer takes its first update at a rate of 0; the recording, at the scheduler's first.
    made.optimizer.set_lr(RECORDED["log"][0]["lr_used"])
    return made


def double_norm(made):
    """fairseq's own takes the norm in float32, which torch no longer allows of doubles; the formula is the same."""
    parameters = list(made.model.parameters())
    made.optimizer.clip_grad_norm = lambda limit, **_: torch.nn.utils.clip_grad_norm_(parameters, limit)


def sample(name):
    case = CASES[name]
    text, text_mask = text_of(case)
    return {
        "video": case["vfeats"],
        "video_mask": case["vmasks"].bool(),
        "text": text,
        "text_mask": text_mask,
        "video_ids": torch.arange(len(text)),
    }


def test_the_trainer_follows_the_recorded_losses_norms_and_rates(tmp_path):
    made = trainer(tmp_path, torch.float32)
    for step in RECORDED["log"]:
        assert made.get_lr() == pytest.approx(step["lr_used"], rel=1e-12)
        with metrics.aggregate(new_root=True) as logged:
            made.train_step([sample(step["case"])])
        assert logged.get_smoothed_value("loss") == pytest.approx(step["loss"], abs=1e-4)  # fairseq rounds its log
        assert logged.get_smoothed_value("gnorm") == pytest.approx(step["grad_norm_before_clip"], abs=1e-3)
        assert made.get_lr() == pytest.approx(step["lr_after"], rel=1e-12)


def test_in_double_precision_it_ends_at_the_recorded_weights(tmp_path):
    made = trainer(tmp_path, torch.float64)
    double_norm(made)
    for step in RECORDED["log"]:
        made.train_step([sample(step["case"])])
    weights = made.model.model.state_dict()
    assert weights
    for name, value in weights.items():
        torch.testing.assert_close(value, FINAL[name], atol=1e-6, rtol=0)
