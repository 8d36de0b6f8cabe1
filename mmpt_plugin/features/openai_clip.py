"""OpenAI's CLIP checkpoints with a ViT: their names and sizes, in those of transformers.

The format is that of openai/CLIP; CLIP4Clip and CLIP2Video write the same names after the prefix `clip.`.
"""

from collections.abc import Collection, Mapping
from typing import Any

from torch import Tensor

from mmpt_plugin.errors import first_ten

HEAD_WIDTH = 64  # of every attention head, in all ViTs that OpenAI released
SCALARS = ("input_resolution", "context_length", "vocab_size")  # only in the TorchScript archives

BLOCK = {
    "attn.in_proj_": "self_attn.{}_proj.",  # the weights of query, key and value, stacked
    "attn.out_proj.": "self_attn.out_proj.",
    "ln_1.": "layer_norm1.",
    "ln_2.": "layer_norm2.",
    "mlp.c_fc.": "mlp.fc1.",
    "mlp.c_proj.": "mlp.fc2.",
}
OTHERS = {
    "logit_scale": "logit_scale",
    "token_embedding.weight": "text_model.embeddings.token_embedding.weight",
    "positional_embedding": "text_model.embeddings.position_embedding.weight",
    "ln_final.weight": "text_model.final_layer_norm.weight",
    "ln_final.bias": "text_model.final_layer_norm.bias",
    "text_projection": "text_projection.weight",
    "visual.class_embedding": "vision_model.embeddings.class_embedding",
    "visual.positional_embedding": "vision_model.embeddings.position_embedding.weight",
    "visual.conv1.weight": "vision_model.embeddings.patch_embedding.weight",
    "visual.ln_pre.weight": "vision_model.pre_layrnorm.weight",
    "visual.ln_pre.bias": "vision_model.pre_layrnorm.bias",
    "visual.ln_post.weight": "vision_model.post_layernorm.weight",
    "visual.ln_post.bias": "vision_model.post_layernorm.bias",
    "visual.proj": "visual_projection.weight",
}
TRANSPOSED = ("text_projection", "visual.proj")  # (in, out), for x @ weight
TOWERS = {"transformer.": "text_model.encoder.", "visual.transformer.": "vision_model.encoder."}


def is_openai_clip(weights: Collection[str]) -> bool:
    """Whether the keys of a checkpoint are those of OpenAI's CLIP, of any vision tower."""
    return {"visual.conv1.weight", "token_embedding.weight", "text_projection"} <= set(weights)


def from_openai(weights: Mapping[str, Tensor], *, where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The sizes for transformers' CLIPConfig, which follow from the shapes, and transformers' weights, in float32.

    ValueError for a ResNet, and for missing or unexpected keys, with their names.
    """
    weights = {key: value for key, value in weights.items() if key not in SCALARS}
    check_vit(weights, where=where)
    found = renamed(weights, clip_names(weights), where=where)
    return clip_sizes(weights, where=where), found


def check_vit(weights: Collection[str], *, where: str) -> None:
    """ValueError for a CLIP whose vision tower is a ResNet."""
    if any(key.startswith("visual.layer1.") for key in weights):
        raise ValueError(f"{where} contains a CLIP with a ResNet; only those with a ViT are supported")


def clip_names(weights: Collection[str]) -> dict[str, str]:
    """For each of OpenAI's keys, of as many layers as the checkpoint has, the key of transformers."""
    towers = [block_names(weights, old, new) for old, new in TOWERS.items()]
    return OTHERS | towers[0] | towers[1]


def block_names(weights: Collection[str], old: str, new: str) -> dict[str, str]:
    """The same for a transformer with the prefix `old`; `new` is that of transformers' encoder."""
    return {
        f"{old}resblocks.{number}.{part}{kind}": f"{new}layers.{number}.{own}{kind}"
        for number in range(num_layers(weights, old))
        for part, own in BLOCK.items()
        for kind in ("weight", "bias")
    }


def num_layers(weights: Collection[str], prefix: str) -> int:
    """Number of layers of the transformer with this prefix."""
    return sum(key.startswith(f"{prefix}resblocks.") and key.endswith(".attn.in_proj_weight") for key in weights)


def renamed(
    weights: Mapping[str, Tensor], names: Mapping[str, str], *, transposed: tuple[str, ...] = TRANSPOSED, where: str
) -> dict[str, Tensor]:
    """The weights under their new names, in float32; ValueError for missing or unexpected keys."""
    problems = [f"missing {key}" for key in names if key not in weights]
    problems += [f"unexpected {key}" for key in weights if key not in names]
    if problems:
        raise ValueError(f"{where} is not a whole checkpoint: {first_ten(problems)}")
    found: dict[str, Tensor] = {}
    for old, new in names.items():
        value = weights[old].float()
        if "{}" in new:
            if value.ndim == 0 or len(value) % 3:
                raise ValueError(
                    f"{where}: {old} has shape {tuple(value.shape)}, expected query, key and value in rows"
                )
            found |= {new.format(one): part for one, part in zip("qkv", value.chunk(3), strict=True)}
        else:
            found[new] = value.T if old.endswith(transposed) else value
    return found


def clip_sizes(weights: Mapping[str, Tensor], *, where: str) -> dict[str, Any]:
    """The values of transformers' CLIPConfig; ValueError for shapes that no ViT of OpenAI's has."""
    text, vision = (tower_sizes(weights, prefix, where=where) for prefix in TOWERS)
    vocab_size, _ = required(weights, "token_embedding.weight", 2, where=where)
    places, _ = required(weights, "positional_embedding", 2, where=where)
    patches, _ = required(weights, "visual.positional_embedding", 2, where=where)
    *_, patch_size = required(weights, "visual.conv1.weight", 4, where=where)
    _, width = required(weights, "text_projection", 2, where=where)
    text |= {
        "vocab_size": vocab_size,
        "max_position_embeddings": places,
        "bos_token_id": vocab_size - 2,
        "eos_token_id": vocab_size - 1,
    }
    vision |= {"patch_size": patch_size, "image_size": patch_size * round((patches - 1) ** 0.5)}
    return {"text_config": text, "vision_config": vision, "projection_dim": width}


def tower_sizes(weights: Mapping[str, Tensor], prefix: str, *, where: str) -> dict[str, int]:
    """The sizes of the transformer with this prefix."""
    inner, width = required(weights, f"{prefix}resblocks.0.mlp.c_fc.weight", 2, where=where)
    if width % HEAD_WIDTH:
        raise ValueError(f"{where}: a transformer of width {width}, expected a multiple of {HEAD_WIDTH}")
    return {
        "hidden_size": width,
        "intermediate_size": inner,
        "num_hidden_layers": num_layers(weights, prefix),
        "num_attention_heads": width // HEAD_WIDTH,
    }


def required(weights: Mapping[str, Tensor], key: str, ndim: int, *, where: str) -> tuple[int, ...]:
    """The shape of a weight; ValueError if it is missing or has another number of dimensions."""
    if key not in weights:
        raise ValueError(f"{where} is not a whole checkpoint: missing {key}")
    if weights[key].ndim != ndim:
        raise ValueError(f"{where}: {key} has shape {tuple(weights[key].shape)}, expected {ndim} dimensions")
    return tuple(weights[key].shape)
