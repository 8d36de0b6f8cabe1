"""The models of fine-tuning against recordings of the original's COIN and CrossTask models."""

import numpy as np
import pytest
import torch

from mmpt_plugin import VideoCLIP
from mmpt_plugin.batch import NO_LABEL, StepBatch
from mmpt_plugin.criterions import (
    FrameCrossEntropy,
    FrameCrossEntropyConfig,
    StepCrossEntropy,
    StepCrossEntropyConfig,
)
from mmpt_plugin.models import VideoCLIPSegmenter, VideoCLIPSegmenterConfig, VideoCLIPStepLocalizer
from tests.conftest import TINY_MODEL
from tests.models.test_videoclip import CASES, GOLDEN, text_of
from tests.tasks.golden import ARRAYS, close, task


def recorded_model(max_video_len):
    return VideoCLIPSegmenter.from_pretrained(
        GOLDEN / "videoclip_coin_head.pt", num_attention_heads=2, max_video_len=max_video_len
    )


def test_logits_and_loss_equal_the_recordings():
    case, model = CASES["coin_head"], recorded_model(8).double()
    with torch.no_grad():
        logits = model.label_logits(case["vfeats"], case["vmasks"].bool())
    torch.testing.assert_close(logits, case["logits"], atol=1e-9, rtol=0)
    loss = FrameCrossEntropy(FrameCrossEntropyConfig())(logits, case["targets"][0])
    assert loss.item() == pytest.approx(case["loss"].item(), abs=1e-5)


def test_segmentation_of_long_videos_equals_the_recordings():
    """Merged over windows; where the recording's two best labels are as good as equal, either will do."""
    coin = task("action_segmentation", "coin", "coin/COIN.json", allow_missing=True, allow_overlap=True)
    model = recorded_model(32)
    logits = torch.cat([model.classify_states(states) for states in coin.states(model)]).detach().numpy()
    close(logits, ARRAYS["coinft_logits"])
    predicted, limit = coin.predict(model)
    assert limit is None
    best = np.sort(ARRAYS["coinft_logits"], axis=1)
    clear = best[:, -1] - best[:, -2] > 1e-5
    np.testing.assert_array_equal(np.concatenate(predicted)[clear], ARRAYS["coinft_pred"][clear])


def test_seconds_without_a_label_do_not_count():
    logits = torch.zeros(1, 3, 4)
    logits[0, 2, 1] = 99.0
    labels = torch.tensor([[1, 2, NO_LABEL]])
    loss, metrics = FrameCrossEntropy(FrameCrossEntropyConfig()).with_metrics(logits, labels)
    assert loss.item() == pytest.approx(np.log(4))
    assert metrics == {"frame_accuracy": 0.0}


def test_frame_accuracy_is_a_share_of_the_labelled_seconds():
    """Right, wrong, without a label, right: 2 of 3."""
    logits = torch.eye(4)[[1, 3, 0, 2]][None]
    labels = torch.tensor([[1, 2, NO_LABEL, 2]])
    _, metrics = FrameCrossEntropy(FrameCrossEntropyConfig()).with_metrics(logits, labels)
    assert metrics == {"frame_accuracy": pytest.approx(2 / 3)}


def test_a_segmenter_starts_from_a_videoclip_and_comes_back_as_one(tmp_path):
    VideoCLIP.from_pretrained(
        GOLDEN / "videoclip_released_layout.pt", num_attention_heads=2, max_video_len=8
    ).save_pretrained(tmp_path / "videoclip")
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_video_layers": 2, "num_text_layers": 3}
    config = VideoCLIPSegmenterConfig(
        num_attention_heads=2,
        vocab_size=100,
        max_video_len=8,
        num_labels=5,
        pretrained=str(tmp_path / "videoclip"),
        **sizes,
    )
    model = VideoCLIPSegmenter(config).eval()
    features = torch.randn(2, 6, 512)
    torch.testing.assert_close(
        model.encode_video(features), VideoCLIP.from_pretrained(tmp_path / "videoclip").encode_video(features)
    )
    model.save_pretrained(tmp_path / "segmenter")
    again = VideoCLIP.from_pretrained(tmp_path / "segmenter")
    assert isinstance(again, VideoCLIPSegmenter)
    torch.testing.assert_close(again.label_logits(features), model.label_logits(features))


def test_a_videoclip_is_no_segmenter(tmp_path):
    with pytest.raises(ValueError, match=r"missing video_encoder\.classifier\.weight"):
        VideoCLIPSegmenter.from_pretrained(
            GOLDEN / "videoclip_released_layout.pt", num_attention_heads=2, max_video_len=8, num_labels=3
        )
    with pytest.raises(ValueError, match=r"unexpected video_encoder\.classifier"):
        VideoCLIP.from_pretrained(GOLDEN / "videoclip_coin_head.pt", num_attention_heads=2, max_video_len=8)
    with pytest.raises(ValueError, match=r"released_layout\.pt does not fit the model: unexpected"):
        VideoCLIP(VideoCLIP.config_type(**TINY_MODEL, pretrained=str(GOLDEN / "videoclip_released_layout.pt")))


def test_step_logits_and_loss_equal_the_recordings():
    case = CASES["crosstask_head"]
    weights = {"num_attention_heads": 2, "max_video_len": 8}
    model = VideoCLIPStepLocalizer.from_pretrained(GOLDEN / "videoclip_released_layout.pt", **weights).double()
    mask = case["vmasks"].bool()
    shown = torch.zeros(*mask.shape, 4, dtype=torch.float64)
    shown[mask] = case["targets"][0]
    caps, cmasks = text_of(case)
    with torch.no_grad():
        logits, targets = model(
            StepBatch(
                video=case["vfeats"],
                video_mask=mask,
                text=caps,
                text_mask=cmasks,
                shown=shown,
                video_ids=torch.zeros(len(mask), dtype=torch.long),
            )
        )
    torch.testing.assert_close(logits, case["logits"], atol=1e-9, rtol=0)
    loss = StepCrossEntropy(StepCrossEntropyConfig())(logits, targets)
    assert loss.item() == pytest.approx(case["loss"].item(), abs=1e-9)
