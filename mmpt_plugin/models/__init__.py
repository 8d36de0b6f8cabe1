"""Models: batches -> embeddings."""

from mmpt_plugin.models.clip import ClipModel, ClipModelConfig
from mmpt_plugin.models.clip2video import Clip2Video, Clip2VideoConfig
from mmpt_plugin.models.clip_mean import ClipMean
from mmpt_plugin.models.embedding import Embedder
from mmpt_plugin.models.pretrained import PretrainedEmbedder, load_model
from mmpt_plugin.models.segmenter import VideoCLIPSegmenter, VideoCLIPSegmenterConfig
from mmpt_plugin.models.step_localizer import VideoCLIPStepLocalizer
from mmpt_plugin.models.videoclip import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.models.videoclip_vit import VideoCLIPViT, VideoCLIPViTConfig

__all__ = [
    "Clip2Video",
    "Clip2VideoConfig",
    "ClipMean",
    "ClipModel",
    "ClipModelConfig",
    "Embedder",
    "PretrainedEmbedder",
    "VideoCLIP",
    "VideoCLIPConfig",
    "VideoCLIPSegmenter",
    "VideoCLIPSegmenterConfig",
    "VideoCLIPStepLocalizer",
    "VideoCLIPViT",
    "VideoCLIPViTConfig",
    "load_model",
]
