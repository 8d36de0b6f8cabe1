"""The ways to compute VideoCLIP's two towers that benchmarks compare, and batches for them."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from mmpt_plugin.batch import Batch, length_mask
from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.models.encoders import masked_mean
from mmpt_plugin.models.rows import by_groups

Embeddings = tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]
Forward = Callable[[VideoCLIP, Batch], Embeddings]

SIZES: dict[str, dict[str, Any]] = {
    "tiny": {
        "hidden_size": 32, "num_attention_heads": 2, "intermediate_size": 128, "num_video_layers": 2,
        "num_text_layers": 2, "vocab_size": 1000,
    },
    "small": {
        "hidden_size": 256, "num_attention_heads": 4, "intermediate_size": 1024, "num_video_layers": 3,
        "num_text_layers": 4,
    },
    "full": {},
}  # fmt: skip


def made_batch(pairs: int, config: VideoCLIPConfig) -> Batch:
    """Clips of 3 to 32 s and texts of 8 to 61 tokens, uniformly distributed; float16 features, as in shards."""
    rng = np.random.default_rng(0)
    video_mask = length_mask(rng.integers(3, 33, pairs), 32)
    text_mask = length_mask(rng.integers(8, 62, pairs) + 2, 63)
    features = torch.from_numpy(rng.standard_normal((pairs, 32, config.feature_dim)).astype(np.float16))
    ids = torch.from_numpy(rng.integers(5, config.vocab_size, (pairs, 63)))
    return Batch(
        video=features * video_mask[:, :, None],
        video_mask=video_mask,
        text=ids * text_mask,
        text_mask=text_mask,
        video_ids=torch.arange(pairs),
    )


def packed(model: VideoCLIP, batch: Batch) -> Embeddings:
    """The embeddings as in training; on a GPU, with the tokens of all rows together."""
    video, text = model(batch)
    return video, text


def grouped(model: VideoCLIP, batch: Batch) -> Embeddings:
    """The embeddings by the groups in which a CPU takes the rows, on any device."""
    video = by_groups(model.video_encoder.encode, batch.video, batch.video_mask)
    return video, by_groups(model.text_encoder.encode, batch.text, batch.text_mask)


def padded(model: VideoCLIP, batch: Batch) -> Embeddings:
    """The embeddings with every row padded to the longest."""
    states = model.video_encoder(batch.video, batch.video_mask)
    text = model.text_encoder(input_ids=batch.text, attention_mask=batch.text_mask).last_hidden_state
    return model.video_encoder.pool(states, batch.video_mask), masked_mean(text[:, 1:], batch.text_mask[:, 1:])


def make_eager(model: VideoCLIP) -> VideoCLIP:
    """The model, with transformers' eager attention in `padded`."""
    for tower in (model.video_encoder.bert, model.text_encoder):
        tower.set_attn_implementation("eager")
    return model


WAYS: dict[str, tuple[Forward, str]] = {  # the forward pass, and `model.attention`
    "packed_jagged": (packed, "jagged"),
    "packed_padded": (packed, "padded"),
    "grouped": (grouped, "padded"),
    "padded": (padded, "padded"),
    "eager": (padded, "padded"),
}


def build(
    way: str, size: str, device: torch.device, dtype: torch.dtype, *, compile: bool = False
) -> tuple[VideoCLIP, Forward]:
    """A model with random weights, equal for all ways, and its forward pass."""
    forward, attention = WAYS[way]
    torch.manual_seed(0)
    with device:
        model = VideoCLIP(VideoCLIPConfig(**SIZES[size], attention=attention, compile=compile)).to(dtype)
    return (make_eager(model) if way == "eager" else model), forward
