"""The two towers of VideoCLIP, based on transformers' BERT: one for video features, one for text.

B clips, T video seconds, L text tokens, F feature width, D hidden width. Parameter names are the same as in the
released checkpoints.
"""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import BertConfig, BertModel

ROWS_CHUNK = 64


def by_length(
    encode: Callable[[Tensor, Tensor], Tensor], rows: Tensor, mask: Bool[Tensor, "B S"]
) -> Float[Tensor, "B D"]:
    """`encode(rows, mask)` in groups of similar length, each padded to its own longest row.

    This halves the work in training: clips have 3 to 32 seconds and texts 8 to 61 words, so if all rows are padded to
    the longest of the batch, half of the positions are padding.
    """
    positions = torch.arange(1, mask.shape[1] + 1, device=mask.device)
    lengths = (mask * positions).amax(dim=1).clamp(min=1)
    order = lengths.argsort()
    groups = torch.split(order, ROWS_CHUNK)
    ends = lengths[torch.stack([group[-1] for group in groups])].tolist()
    encoded = torch.cat([encode(rows[i, :end], mask[i, :end]) for i, end in zip(groups, ends, strict=True)])
    return torch.empty_like(encoded).index_copy(0, order, encoded)


class VideoEncoder(nn.Module):
    """An MLP with one hidden layer on frozen features, then BERT on `[CLS] seconds [SEP]` (VideoCLIP, section 3.1)."""

    def __init__(
        self, bert: BertConfig, *, feature_dim: int, max_video_len: int, cls_token_id: int, sep_token_id: int
    ) -> None:
        super().__init__()
        self.max_video_len = max_video_len
        self.videomlp = VideoMLP(feature_dim, bert.hidden_size)
        self.bert = BertModel(bert, add_pooling_layer=False)
        self.register_buffer("special_ids", torch.tensor([cls_token_id, sep_token_id]), persistent=False)

    def forward(
        self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"], *, attend_to_cls: bool = True
    ) -> Float[Tensor, "B T+2 D"]:
        """The last hidden states of [CLS], every second and [SEP]. attend_to_cls=False masks [CLS] for all tokens."""
        size, steps = mask.shape
        if steps > self.max_video_len:
            raise ValueError(f"a clip of {steps} s is longer than the model's max_video_len {self.max_video_len}")
        special = self.bert.embeddings.word_embeddings(self.special_ids)  # (2, D)
        seconds = self.videomlp(features.to(special.dtype))
        ends = special.expand(size, 2, -1)
        tokens = torch.cat([ends[:, :1], seconds, ends[:, 1:]], dim=1)  # (B, T+2, D)
        positions = torch.arange(steps + 2, device=mask.device)
        positions[-1] = self.max_video_len + 1  # [SEP] has the position it has after a clip of full length
        visible = F.pad(F.pad(mask, (1, 0), value=attend_to_cls), (0, 1), value=True)
        output = self.bert(inputs_embeds=tokens, attention_mask=visible, position_ids=positions[None])
        states: Tensor = output.last_hidden_state
        return states

    def encode(self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """The mean over the valid seconds and [SEP]; for a clip without a valid second, the state of [SEP]."""
        return by_length(lambda rows, seen: self.pool(self(rows, seen), seen), features, mask)

    @staticmethod
    def pool(states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B T"]) -> Float[Tensor, "B D"]:
        """The mean of the states of valid seconds and [SEP]; S is T + 2, with [CLS] first and [SEP] last."""
        return masked_mean(states[:, 1:], F.pad(mask, (0, 1), value=True))


class VideoMLP(nn.Module):
    """Feature width to hidden width: linear, GELU, LayerNorm, linear."""

    def __init__(self, feature_dim: int, hidden_size: int) -> None:
        super().__init__()
        self.linear1 = nn.Linear(feature_dim, hidden_size)
        self.LayerNorm = nn.LayerNorm(hidden_size)
        self.linear2 = nn.Linear(hidden_size, hidden_size)
        for linear in (self.linear1, self.linear2):
            nn.init.normal_(linear.weight, std=0.02)
            nn.init.zeros_(linear.bias)

    def forward(self, features: Float[Tensor, "B T F"]) -> Float[Tensor, "B T D"]:
        """One token of hidden width per second."""
        states: Tensor = self.linear2(self.LayerNorm(F.gelu(self.linear1(features))))
        return states


class TextEncoder(BertModel):  # type: ignore[no-untyped-call]
    """BERT over `[CLS] words [SEP]`, pooled by the mean over words and [SEP] (VideoCLIP, section 3.1)."""

    def __init__(self, bert: BertConfig) -> None:
        super().__init__(bert, add_pooling_layer=False)

    def encode(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """The mean over words and [SEP] of each text; for a text of one token, the state of that token."""
        return by_length(self._encode, ids, mask)

    def _encode(self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        states = self(input_ids=ids, attention_mask=mask).last_hidden_state
        counted = mask & (torch.arange(mask.shape[1], device=mask.device) > 0)
        counted[:, 0] |= ~counted.any(dim=1)  # a text of one token counts that token
        return masked_mean(states, counted)


def masked_mean(states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B D"]:
    """The mean of the states where the mask is True; NaN for a row without any."""
    weight = mask.to(states.dtype)
    return torch.einsum("bsd,bs->bd", states, weight) / weight.sum(dim=1, keepdim=True)
