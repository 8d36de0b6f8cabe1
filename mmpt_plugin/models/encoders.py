"""The two towers of VideoCLIP, based on transformers' BERT: one for video features, one for text.

B clips, T video seconds, L text tokens, F feature width, D hidden width. Parameter names are the same as in the
released checkpoints.
"""

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from transformers import BertConfig, BertModel

from mmpt_plugin.models.packed import Packing, encode_packed
from mmpt_plugin.models.rows import encode_rows


class VideoEncoder(nn.Module):
    """An MLP with one hidden layer on frozen features, then BERT on `[CLS] seconds [SEP]` (VideoCLIP, section 3.1)."""

    def __init__(
        self,
        bert: BertConfig,
        *,
        feature_dim: int,
        max_video_len: int,
        cls_token_id: int,
        sep_token_id: int,
        attention: str = "auto",
        compiled: bool = False,
    ) -> None:
        super().__init__()
        self.max_video_len = max_video_len
        self.attention, self.compiled = attention, compiled
        self.videomlp = VideoMLP(feature_dim, bert.hidden_size)
        self.bert = BertModel(bert, add_pooling_layer=False)
        self.register_buffer("special_ids", torch.tensor([cls_token_id, sep_token_id]), persistent=False)

    def forward(
        self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"], *, attend_to_cls: bool = True
    ) -> Float[Tensor, "B T+2 D"]:
        """The last hidden states of [CLS], every second, also of padding, and [SEP].

        attend_to_cls=False masks [CLS] for all tokens.
        """
        size, steps = self._check(mask)
        special = self.bert.embeddings.word_embeddings(self.special_ids)  # (2, D)
        seconds = self.videomlp(features.to(special.dtype))
        ends = special.expand(size, 2, -1)
        tokens = torch.cat([ends[:, :1], seconds, ends[:, 1:]], dim=1)  # (B, T+2, D)
        positions = self._positions(torch.arange(steps + 2, device=mask.device), steps)
        visible = F.pad(F.pad(mask, (1, 0), value=attend_to_cls), (0, 1), value=True)
        # transformers reads a mask of two dimensions, which waits for a GPU; it adds one of four to the scores.
        added = torch.zeros_like(visible, dtype=tokens.dtype).masked_fill(~visible, torch.finfo(tokens.dtype).min)
        output = self.bert(inputs_embeds=tokens, attention_mask=added[:, None, None], position_ids=positions[None])
        states: Tensor = output.last_hidden_state
        return states

    def encode(
        self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"], places: Int[Tensor, " N"] | None = None
    ) -> Float[Tensor, "B D"]:
        """The mean over the valid seconds and [SEP]; for a clip without a valid second, the state of [SEP].

        `places` are the positions of the valid seconds in the flattened mask; on a GPU, to find them takes time.
        """
        return encode_rows(self, features, mask, places)

    def _encode(
        self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"], places: Int[Tensor, " N"]
    ) -> Float[Tensor, "B D"]:
        size, steps = self._check(mask)
        seconds, tables = Packing(mask, places), self.bert.embeddings
        special = tables.word_embeddings(self.special_ids)  # (2, D)
        starts = torch.arange(size, device=mask.device) * (steps + 2)
        tokens = torch.cat([
            special[:1].expand(size, -1),
            self.videomlp(seconds.pack(features).to(special.dtype)),
            special[1:].expand(size, -1),
        ])  # fmt: skip
        where, order = torch.cat([starts, seconds.places + 2 * seconds.rows + 1, starts + steps + 1]).sort()
        packing = Packing(F.pad(mask, (1, 1), value=True), where)
        positions = tables.position_embeddings(self._positions(packing.positions, steps))
        embeddings = tokens[order] + tables.token_type_embeddings.weight[0] + positions
        states = encode_packed(self.bert, embeddings, packing, attention=self.attention)
        return self.pool(packing.pad(states), mask)

    def _check(self, mask: Bool[Tensor, "B T"]) -> tuple[int, int]:
        """The number of clips and their seconds; ValueError for more seconds than the model takes."""
        size, steps = mask.shape
        if steps > self.max_video_len:
            raise ValueError(f"a clip of {steps} s is longer than the model's max_video_len {self.max_video_len}")
        return size, steps

    def _positions(self, places: Int[Tensor, "*B"], steps: int) -> Int[Tensor, "*B"]:
        """The positions that BERT sees: [SEP] has the one that it has after a clip of full length."""
        return places.masked_fill(places == steps + 1, self.max_video_len + 1)

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

    def forward(self, features: Float[Tensor, "*B F"]) -> Float[Tensor, "*B D"]:
        """One token of hidden width per second."""
        states: Tensor = self.linear2(self.LayerNorm(F.gelu(self.linear1(features))))
        return states


class TextEncoder(BertModel):  # type: ignore[no-untyped-call]
    """BERT over `[CLS] words [SEP]`, pooled by the mean over words and [SEP] (VideoCLIP, section 3.1)."""

    def __init__(self, bert: BertConfig, *, attention: str = "auto", compiled: bool = False) -> None:
        super().__init__(bert, add_pooling_layer=False)
        self.attention, self.compiled = attention, compiled

    def encode(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"], places: Int[Tensor, " N"] | None = None
    ) -> Float[Tensor, "B D"]:
        """The mean over words and [SEP] of each text; for a text of one token, the state of that token.

        `places` are the positions of the tokens in the flattened mask; on a GPU, to find them takes time.
        """
        return encode_rows(self, ids, mask, places)

    def _encode(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"], places: Int[Tensor, " N"]
    ) -> Float[Tensor, "B D"]:
        packing, tables = Packing(mask, places), self.embeddings
        embeddings = tables.word_embeddings(packing.pack(ids)) + tables.token_type_embeddings.weight[0]
        embeddings = embeddings + tables.position_embeddings(packing.positions)
        states = packing.pad(encode_packed(self, embeddings, packing, attention=self.attention))
        counted = mask & (torch.arange(mask.shape[1], device=mask.device) > 0)
        first = torch.arange(mask.shape[1], device=mask.device) == 0
        counted = counted | (first & ~counted.any(dim=1, keepdim=True))  # a text of one token counts that token
        return masked_mean(states, counted)


def masked_mean(states: Float[Tensor, "B S D"], mask: Bool[Tensor, "B S"]) -> Float[Tensor, "B D"]:
    """The mean of the states where the mask is True; NaN for a row without any."""
    weight = mask.to(states.dtype)
    return torch.einsum("bsd,bs->bd", states, weight) / weight.sum(dim=1, keepdim=True)
