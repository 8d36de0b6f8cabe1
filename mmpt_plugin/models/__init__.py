"""Models: batches -> embeddings."""

from mmpt_plugin.models.videoclip import VideoCLIP, VideoCLIPConfig

__all__ = ["VideoCLIP", "VideoCLIPConfig"]
