from .clip import CLIPEncoder as CLIPEncoder
from .clip import CLIPEncoderConfig as CLIPEncoderConfig
from .efficientnet import EfficientNetLite0 as EfficientNetLite0
from .efficientnet import EfficientNetLite0Config as EfficientNetLite0Config
from .s3d import S3DEncoder as S3DEncoder
from .s3d import S3DEncoderConfig as S3DEncoderConfig
