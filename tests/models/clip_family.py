"""Small random backbones, and models on them, that the tests of the family share."""

import torch
from transformers import CLIPConfig, CLIPModel, SiglipConfig, SiglipModel

from mmpt_plugin.models import CLIPModelConfig
from mmpt_plugin.registry import models

FAMILY = [name for name in models if issubclass(models[name].config, CLIPModelConfig)]

TEXT = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 4,
    "intermediate_size": 32,
    "vocab_size": 40,
    "max_position_embeddings": 12,
    "bos_token_id": 38,
    "eos_token_id": 39,
}
VISION = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "num_hidden_layers": 1,
    "intermediate_size": 32,
    "image_size": 8,
    "patch_size": 4,
}
TINY_CLIP = {"model_type": "clip", "text_config": TEXT, "vision_config": VISION, "projection_dim": 16}
TINY_SIGLIP = {
    "model_type": "siglip",
    "text_config": TEXT | {"projection_size": 16, "pad_token_id": 1},
    "vision_config": VISION,
}
SETTINGS = {"videoclip_vit": {"embedding_dim": 24}}  # of the models that have some of their own
TINY = {"backbone": TINY_CLIP, "max_text_len": 8, "max_video_len": 8}


def transformers_model(values):
    """As transformers itself makes it."""
    kind, config = {"clip": (CLIPModel, CLIPConfig), "siglip": (SiglipModel, SiglipConfig)}[values["model_type"]]
    torch.manual_seed(0)
    model = kind(config(**{key: value for key, value in values.items() if key != "model_type"})).eval()
    for parameter in model.parameters():  # SigLIP's own initialisation leaves too little of some
        if parameter.ndim > 1:
            torch.nn.init.normal_(parameter, std=0.3)
    return model


def frames(clips=3, length=4, seed=0):
    """Frames of which the last clip has one fewer, and the mask that says so."""
    video = torch.randint(256, (clips, length, 8, 8, 3), generator=torch.manual_seed(seed), dtype=torch.uint8)
    mask = torch.ones(clips, length, dtype=torch.bool)
    mask[-1, -1] = False
    return video, mask


def texts(rows=3):
    """`[bos] w.. [eos] [pad]..` of 3, 4, .. words."""
    ids = torch.full((rows, rows + 4), 1)
    mask = torch.zeros_like(ids, dtype=torch.bool)
    for row in range(rows):
        ids[row, : row + 5] = torch.tensor([38, *range(10 + row, 13 + 2 * row), 39])
        mask[row, : row + 5] = True
    return ids, mask
