"""VideoCLIP (Xu et al., EMNLP 2021): a video and a text encoder that share nothing but their space.

B clips, T video seconds, L text tokens, F feature width, D hidden width.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import BertConfig, BertModel, PreTrainedTokenizerBase

from mmpt_plugin import registry
from mmpt_plugin.checkpoint import (
    find_checkpoint,
    first_line,
    load_strictly,
    read_folder,
    read_torch_file,
    write_folder,
)
from mmpt_plugin.clips.batch import Batch
from mmpt_plugin.clips.captions import load_tokenizer, token_ids
from mmpt_plugin.models.embedding import Embedder
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.registry import register_model

BERT_VOCAB_SIZE, BERT_CLS_ID = 30522, 101


@dataclass(kw_only=True)
class VideoCLIPConfig:
    """Defaults are the paper's, on BERT-base."""

    bert: str | None = None
    """A BERT to start both encoders from, by hub name or folder; None starts from random weights."""
    pretrained: str | None = None
    """A VideoCLIP to start from: a folder, its name on the hub, or a fairseq checkpoint, as for from_pretrained."""
    feature_dim: int = 512
    hidden_size: int = 768
    num_attention_heads: int = 12
    intermediate_size: int = 3072
    num_video_layers: int = 6
    num_text_layers: int = 12
    vocab_size: int = BERT_VOCAB_SIZE
    max_video_len: int = 32
    """Seconds; the [SEP] after a clip stands at position max_video_len + 1."""
    max_text_len: int = 61
    """Word pieces of a text that are read, [CLS] and [SEP] not counted."""
    max_position_embeddings: int = 512
    dropout: float = 0.1
    cls_token_id: int = -1
    """[CLS]; [SEP] is the one after. -1: 101, as BERT has it, or 2 for a vocabulary of another size."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"model.hidden_size {self.hidden_size} is no multiple of "
                f"model.num_attention_heads {self.num_attention_heads}"
            )
        if self.max_video_len + 2 > self.max_position_embeddings:
            raise ValueError(
                f"model.max_video_len {self.max_video_len} needs max_position_embeddings of two more, "
                f"got {self.max_position_embeddings}"
            )
        if self.cls_token_id < 0:
            self.cls_token_id = BERT_CLS_ID if self.vocab_size == BERT_VOCAB_SIZE else 2


@register_model("videoclip", dataclass=VideoCLIPConfig)
class VideoCLIP(Embedder):
    """Frozen video features and text into one space, compared by dot product (VideoCLIP, section 3)."""

    model_type = "videoclip"
    config_type = VideoCLIPConfig
    batch_type: type = Batch
    heads: tuple[str, ...] = ()
    """Prefixes of weights that a pre-trained checkpoint need not have."""

    def __init__(self, config: VideoCLIPConfig) -> None:
        super().__init__()
        self.config: VideoCLIPConfig = config
        self.tokenizer: PreTrainedTokenizerBase | None = None
        self.video_encoder = VideoEncoder(
            bert_config(config, config.num_video_layers),
            feature_dim=config.feature_dim,
            max_video_len=config.max_video_len,
            cls_token_id=config.cls_token_id,
            sep_token_id=config.cls_token_id + 1,
        )
        self.text_encoder = TextEncoder(bert_config(config, config.num_text_layers))
        self.add_heads()
        if config.pretrained is not None:
            start_from_pretrained(self, config.pretrained)
        elif config.bert is not None:
            start_from_bert(self, config.bert)

    def add_heads(self) -> None:
        """For those who build on this model."""

    def forward(self, batch: Batch) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"]]:
        """The pooled video and text of every pair."""
        return self.encode_video(batch.video, batch.video_mask), self.encode_text(batch.text, batch.text_mask)

    def encode_video(
        self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"] | None = None, *, see_cls: bool = True
    ) -> Float[Tensor, "B D"]:
        """One vector a clip of at most max_video_len seconds; `mask` is False where a row is padding.

        Training sees [CLS]; see_cls=False hides it from all other tokens.
        """
        return self.video_encoder.encode(features, full_mask(features, mask), see_cls=see_cls)

    def encode_video_steps(
        self, features: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"] | None = None, *, see_cls: bool = True
    ) -> Float[Tensor, "B T D"]:
        """The last hidden state of every second, [CLS] and [SEP] left out.

        The original hides [CLS] here on COIN and CrossTask, where see_cls=False gives its numbers.
        """
        states: Tensor = self.video_encoder(features, full_mask(features, mask), see_cls=see_cls)
        return states[:, 1:-1]

    def encode_text(
        self, text: Int[Tensor, "B L"] | Sequence[str], mask: Bool[Tensor, "B L"] | None = None
    ) -> Float[Tensor, "B D"]:
        """One vector a text: token ids `[CLS] w1..wn [SEP] [PAD]..` with their mask, or strings.

        Strings need a tokenizer: a model loaded from a folder that holds one, or `model.tokenizer = ...`.
        """
        if not isinstance(text, Tensor):
            return self.encode_text(*self._tokenize(list(text)))
        return self.text_encoder.encode(text, torch.ones_like(text, dtype=torch.bool) if mask is None else mask)

    def _tokenize(self, texts: list[str]) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
        if self.tokenizer is None:
            raise ValueError("this model came without a tokenizer: pass token ids, or set model.tokenizer")
        length = min(self.config.max_text_len + 2, self.config.max_position_embeddings)
        ids, mask = token_ids(texts, self.tokenizer, max_length=length)
        return ids.to(self.text_encoder.device), mask.to(self.text_encoder.device)

    def save_pretrained(self, folder: str | Path) -> None:
        """model.safetensors, config.json and, where there is a tokenizer, its files."""
        config = {"model_type": self.model_type, **asdict(self.config), "bert": None, "pretrained": None}
        config["encoder"] = self.encoder
        write_folder(Path(folder), config, self.state_dict())
        if self.tokenizer is not None:
            self.tokenizer.save_pretrained(str(folder))

    @classmethod
    def from_pretrained(
        cls,
        path: str | Path,
        *,
        tokenizer: str | Path | None = None,
        encoder: str | Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> "VideoCLIP":
        """A model in eval mode from a folder of `save_pretrained`, its name on the hub, or a fairseq checkpoint.

        Tensor shapes tell most of the configuration; `settings` (num_attention_heads, max_video_len, max_text_len,
        dropout, cls_token_id) override what the file says of the rest. Missing, unexpected or misshapen keys raise.
        `tokenizer` is a BERT tokenizer by hub name or folder, for checkpoints, which hold none; the released
        VideoCLIP was trained with bert-base-uncased's. `encoder` is what `embed_videos` then makes features with.
        """
        path = find_checkpoint(path)
        config, weights = read_checkpoint(path)
        name = str(config.get("_name") or config.get("model_type"))  # the original's is "mmarch"
        if name in registry.models and issubclass(registry.models[name].cls, cls):
            cls = registry.models[name].cls
        known = {field.name for field in fields(cls.config_type)}
        if unknown := set(settings) - known:
            raise ValueError(f"no setting {sorted(unknown)}. Possible: {sorted(known)}")
        model = cls(
            cls.config_type(
                **{key: value for key, value in (config | shapes(weights, where=str(path))).items() if key in known}
                | settings
                | {"bert": None, "pretrained": None}
            )
        )
        load_strictly(model, weights, where=str(path))
        model.encoder = {"_name": encoder} if isinstance(encoder, str) else dict(encoder or {}) or config.get("encoder")
        if tokenizer is None and (path / "tokenizer_config.json").is_file():
            tokenizer = path
        if tokenizer is not None:
            model.tokenizer = load_tokenizer(str(tokenizer))
            if len(model.tokenizer) > model.config.vocab_size:
                raise ValueError(
                    f"tokenizer {tokenizer} has {len(model.tokenizer)} word pieces, {path} knows "
                    f"{model.config.vocab_size}: it was trained with another"
                )
        return model.eval()


def read_checkpoint(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a folder or a fairseq checkpoint says of its configuration, and its weights."""
    if path.is_dir():
        return read_folder(path)
    return from_fairseq(read_torch_file(path), where=str(path))


def start_from_pretrained(model: "VideoCLIP", name: str) -> None:
    """All weights that the checkpoint has; a head that it lacks keeps its own."""
    weights = read_checkpoint(find_checkpoint(name))[1]
    heads = {key: value for key, value in model.state_dict().items() if key.startswith(model.heads)}
    load_strictly(model, heads | weights, where=name)


def full_mask(features: Tensor, mask: Tensor | None) -> Tensor:
    return torch.ones(features.shape[:2], dtype=torch.bool, device=features.device) if mask is None else mask


def bert_config(config: VideoCLIPConfig, num_layers: int) -> BertConfig:
    made = BertConfig(
        vocab_size=config.vocab_size,
        hidden_size=config.hidden_size,
        num_hidden_layers=num_layers,
        num_attention_heads=config.num_attention_heads,
        intermediate_size=config.intermediate_size,
        max_position_embeddings=config.max_position_embeddings,
        hidden_dropout_prob=config.dropout,
        attention_probs_dropout_prob=config.dropout,
    )
    made._attn_implementation = "sdpa"
    return made


def start_from_bert(model: VideoCLIP, name: str) -> None:
    """Text: all layers asked for. Video: the embeddings and the first layers of the same BERT (section 5.2)."""
    try:
        bert = BertModel.from_pretrained(name, add_pooling_layer=False)
    except OSError as error:
        raise ValueError(f"model.bert: no BERT at '{name}': {first_line(error)}") from error
    for key in (
        "vocab_size",
        "hidden_size",
        "num_attention_heads",
        "intermediate_size",
        "max_position_embeddings",
    ):
        if getattr(bert.config, key) != getattr(model.config, key):
            raise ValueError(
                f"model.{key} is {getattr(model.config, key)}, but '{name}' has {getattr(bert.config, key)}"
            )
    if bert.config.num_hidden_layers < max(model.config.num_text_layers, model.config.num_video_layers):
        raise ValueError(f"'{name}' has {bert.config.num_hidden_layers} layers, fewer than the model asks for")
    for tower in (model.video_encoder.bert, model.text_encoder):
        own = tower.state_dict()
        load_strictly(tower, {key: value for key, value in bert.state_dict().items() if key in own}, where=name)


def from_fairseq(content: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The model's configuration and weights in a fairseq checkpoint: ours, or the released one's.

    The released checkpoint's weights stand under `mmmodel.`, ours under `model.`. It has pooling layers, which
    its model never reads, and position_ids, which are no weights; both are left out.
    """
    weights = content.get("model", content.get("state_dict", content))
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{where} is no checkpoint of VideoCLIP: it has no weights under 'model'")
    prefix = next((p for p in ("mmmodel.", "model.") if all(key.startswith(p) for key in weights)), "")
    weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    weights = {
        key: value.float() if value.is_floating_point() else value
        for key, value in weights.items()
        if ".pooler." not in key and not key.endswith(".position_ids")
    }
    config = (content.get("cfg") or {}).get("model") or {}
    return dict(config) if isinstance(config, Mapping) else vars(config), weights


def shapes(weights: Mapping[str, Tensor], *, where: str) -> dict[str, int]:
    """What tensor shapes tell of a configuration."""

    def num_layers(tower: str) -> int:
        prefix = f"{tower}.encoder.layer."
        return len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})

    try:
        hidden_size, feature_dim = weights["video_encoder.videomlp.linear1.weight"].shape
        return {
            "feature_dim": feature_dim,
            "hidden_size": hidden_size,
            "intermediate_size": len(weights["text_encoder.encoder.layer.0.intermediate.dense.weight"]),
            "num_video_layers": num_layers("video_encoder.bert"),
            "num_text_layers": num_layers("text_encoder"),
            "num_labels": len(weights.get("video_encoder.classifier.bias", ())),
            "vocab_size": len(weights["text_encoder.embeddings.word_embeddings.weight"]),
            "max_position_embeddings": len(weights["text_encoder.embeddings.position_embeddings.weight"]),
        }
    except KeyError as error:
        raise ValueError(f"{where} is no checkpoint of VideoCLIP: it has no {error.args[0]}") from error
