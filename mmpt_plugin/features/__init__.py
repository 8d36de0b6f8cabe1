"""Raw video -> features -> shards."""

from mmpt_plugin.features.clip import CLIPEncoder, CLIPEncoderConfig
from mmpt_plugin.features.efficientnet import EfficientNetLite0, EfficientNetLite0Config
from mmpt_plugin.features.s3d import S3DEncoder, S3DEncoderConfig

__all__ = [
    "CLIPEncoder",
    "CLIPEncoderConfig",
    "EfficientNetLite0",
    "EfficientNetLite0Config",
    "S3DEncoder",
    "S3DEncoderConfig",
]
