"""VideoCLIP (Xu et al., EMNLP 2021): a video and a text encoder that map into one space and share no weights.

B clips, T video seconds, L text tokens, F feature width, D hidden width.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from jaxtyping import Bool, Float, Int
from torch import Tensor
from transformers import BertConfig, BertModel

from mmpt_plugin.checkpoint import find_checkpoint, load_strictly
from mmpt_plugin.errors import first_line
from mmpt_plugin.models.encoders import TextEncoder, VideoEncoder
from mmpt_plugin.models.packed import check_attention
from mmpt_plugin.models.padding import full_mask
from mmpt_plugin.models.pretrained import PretrainedEmbedder, read_checkpoint, start_from_pretrained
from mmpt_plugin.registry import register_model

logger = logging.getLogger(__name__)

BERT_VOCAB_SIZE, BERT_CLS_ID = 30522, 101
BERT_SIZES = ("vocab_size", "hidden_size", "num_attention_heads", "intermediate_size", "max_position_embeddings")


@dataclass(kw_only=True)
class VideoCLIPConfig:
    """Sizes and starting weights of VideoCLIP; the defaults are the paper's, on BERT-base (section 5.2)."""

    bert: str | None = None
    """BERT whose weights both encoders start from: hub name or folder. Null starts from random weights."""
    pretrained: str | None = None
    """VideoCLIP to start training from: a folder, a hub name or a fairseq checkpoint, as for `from_pretrained`."""
    feature_dim: int = 512
    """Width of the input features: one row per second. S3D's rows, which the paper uses, have 512."""
    hidden_size: int = 768
    """Width of both encoders and of the embeddings; 768 is BERT-base. Must be a multiple of `num_attention_heads`."""
    num_attention_heads: int = 12
    """Attention heads of each layer; 12 is BERT-base. Weights do not record it, so it must match `pretrained`."""
    intermediate_size: int = 3072
    """Width of the feed-forward blocks; 3072 is BERT-base."""
    num_video_layers: int = 6
    """Transformer layers of the video encoder; the paper takes the first 6 of BERT-base (section 5.2)."""
    num_text_layers: int = 12
    """Transformer layers of the text encoder; the paper takes all 12 of BERT-base (section 5.2)."""
    vocab_size: int = BERT_VOCAB_SIZE
    """Number of token ids the text encoder knows; 30522 is bert-base-uncased. A larger tokenizer is refused."""
    max_video_len: int = 32
    """Longest clip, in seconds (one feature row per second). The [SEP] after a clip has position max_video_len + 1."""
    max_text_len: int = 61
    """Maximum word pieces per text, not counting [CLS] and [SEP]. A longer text is cut and keeps its [SEP]."""
    max_position_embeddings: int = 512
    """Positions of each encoder: at least `max_video_len` + 2. 512 is BERT-base."""
    dropout: float = 0.1
    """Dropout of hidden states and of attention weights, in training only; 0.1 is BERT's."""
    normalize: bool = False
    """Scale all vectors to unit length, which makes dot products cosines. VideoCLIP compares plain dot products."""
    attend_to_cls: bool | None = None
    """Whether seconds attend to [CLS] in `encode_video_steps`; in `encode_video` they always do. Null leaves the choice
    to the caller and is for weights that were not trained on per-second states: tasks on COIN and CrossTask then mask
    [CLS] (`task.hide_cls`), as the original does when it evaluates its pre-trained weights."""
    chunk_size: int = 0
    """Clips, and texts, encoded at a time in training; 0 encodes the whole batch at once. Only one chunk's activations
    are in memory, and gradients are exact, at the cost of a second forward pass (GradCache)."""
    attention: str = "auto"
    """How `encode_video` and `encode_text` attend, which pad nothing else: `padded` pads each row of the batch to the
    longest, `jagged` uses kernels that take rows of different lengths. `auto` is padded on a CPU, and jagged on a GPU
    where a first small comparison of both gives the same."""
    compile: bool = False
    """Compile both encoders of `encode_video` and `encode_text` with `torch.compile`, once for batches of all sizes. It
    takes minutes at the first batches, and needs a C++ compiler on a CPU. A model that is loaded is compiled only with
    `load_model(path, compile=True)`."""
    cls_token_id: int = -1
    """Token id of [CLS]; [SEP] is the next id. -1 means 101 for BERT's vocabulary, and 2 for any other size."""

    def __post_init__(self) -> None:
        if self.hidden_size % self.num_attention_heads:
            raise ValueError(
                f"model.hidden_size {self.hidden_size} is not a multiple of "
                f"model.num_attention_heads {self.num_attention_heads}"
            )
        if self.max_video_len + 2 > self.max_position_embeddings:
            raise ValueError(
                f"model.max_position_embeddings must be at least max_video_len + 2 = {self.max_video_len + 2}, "
                f"got {self.max_position_embeddings}"
            )
        check_attention(self.attention)
        if self.chunk_size < 0:
            raise ValueError(f"model.chunk_size must be 0 or more, got {self.chunk_size}")
        if self.cls_token_id < 0:
            self.cls_token_id = BERT_CLS_ID if self.vocab_size == BERT_VOCAB_SIZE else 2
        if self.cls_token_id + 1 >= self.vocab_size:
            raise ValueError(
                f"model.vocab_size is {self.vocab_size}, but model.cls_token_id is {self.cls_token_id}, and the id of "
                "[SEP] the next one"
            )


@register_model("videoclip", dataclass=VideoCLIPConfig)
class VideoCLIP(PretrainedEmbedder):
    """Encodes frozen video features and text into one space, compared by dot product (VideoCLIP, section 3)."""

    config: VideoCLIPConfig
    sizes = (*BERT_SIZES, "feature_dim", "num_video_layers", "num_text_layers", "cls_token_id")
    of_the_machine = ("attention", "compile")

    def __init__(self, config: VideoCLIPConfig) -> None:
        super().__init__(config)
        self.video_encoder = VideoEncoder(
            bert_config(config, config.num_video_layers),
            feature_dim=config.feature_dim,
            max_video_len=config.max_video_len,
            cls_token_id=config.cls_token_id,
            sep_token_id=config.cls_token_id + 1,
            attention=config.attention,
            compiled=config.compile,
        )
        self.text_encoder = TextEncoder(
            bert_config(config, config.num_text_layers), attention=config.attention, compiled=config.compile
        )
        self.add_heads()
        if config.pretrained is not None:
            found, weights = read_checkpoint(find_checkpoint(config.pretrained))
            check_start(config, found)
            start_from_pretrained(self, weights, where=config.pretrained)
        elif config.bert is not None:
            start_from_bert(self, config.bert)

    def add_heads(self) -> None:
        """Create the weights that a subclass adds; called before starting weights are loaded."""

    def video_vectors(
        self, video: Float[Tensor, "B T F"], mask: Bool[Tensor, "B T"], places: Int[Tensor, " N"] | None = None
    ) -> Float[Tensor, "B D"]:
        """The mean of the last hidden states of seconds and [SEP]."""
        return self.video_encoder.encode(video, mask, places)

    def text_vectors(
        self, ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"], places: Int[Tensor, " N"] | None = None
    ) -> Float[Tensor, "B D"]:
        """The mean of the last hidden states of words and [SEP]."""
        return self.text_encoder.encode(ids, mask, places)

    def encode_video_steps(
        self,
        features: Float[Tensor, "B T F"],
        mask: Bool[Tensor, "B T"] | None = None,
        *,
        attend_to_cls: bool | None = None,
    ) -> Float[Tensor, "B T D"]:
        """The last hidden state of every second, without [CLS] and [SEP].

        `attend_to_cls` decides whether seconds attend to [CLS] if `model.attend_to_cls` is null; a value that
        contradicts the config is a ValueError.
        """
        own = self.config.attend_to_cls
        if own is not None and attend_to_cls not in (None, own):
            raise ValueError(f"attend_to_cls={attend_to_cls}, but the model was trained with attend_to_cls={own}")
        visible = next((choice for choice in (own, attend_to_cls) if choice is not None), True)
        states: Tensor = self.video_encoder(features, full_mask(features, mask), attend_to_cls=visible)
        return self.scaled(states[:, 1:-1])

    @classmethod
    def start_settings(cls, model: Mapping[str, Any]) -> dict[str, Any]:
        """See `PretrainedEmbedder.start_settings`; those of a BERT are its sizes."""
        if model.get("bert") and not model.get("pretrained"):
            return bert_sizes(model["bert"])
        settings = super().start_settings(model)
        if settings.get("cls_token_id", -1) < 0:  # follows from vocab_size
            settings.pop("cls_token_id", None)
        return settings

    @staticmethod
    def config_of(weights: Mapping[str, Tensor], *, where: str) -> dict[str, Any]:
        """See `PretrainedEmbedder.config_of`."""
        return shapes(weights, where=where)


def bert_config(config: VideoCLIPConfig, num_layers: int) -> BertConfig:
    """The transformers configuration of one encoder, with PyTorch's fused attention."""
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


def check_start(config: VideoCLIPConfig, found: Mapping[str, Any]) -> None:
    """Compare the checkpoint's settings that do not follow from tensor shapes: ValueError if a difference makes its
    weights unusable, otherwise a warning."""
    for key, must_agree in (
        ("num_attention_heads", True),
        ("cls_token_id", True),
        ("max_video_len", False),
        ("normalize", False),
    ):
        own, theirs = getattr(config, key), found.get(key)
        if theirs is None or theirs == own or (key == "cls_token_id" and theirs < 0):
            continue
        message = f"model.{key} is {own}, but {config.pretrained} was trained with {theirs}"
        if must_agree:
            raise ValueError(message)
        logger.warning(message)


def bert_sizes(name: str) -> dict[str, Any]:
    """The sizes of a BERT in a folder or in the hub's cache; {} if it is not there, or not yet."""
    try:
        found = BertConfig.from_pretrained(name, local_files_only=True)
    except OSError:
        return {}
    return {key: getattr(found, key) for key in BERT_SIZES}


def start_from_bert(model: VideoCLIP, name: str) -> None:
    """Initialize both encoders from BERT: its embeddings and as many of its first layers as each encoder has
    (section 5.2)."""
    try:
        bert = BertModel.from_pretrained(name, add_pooling_layer=False)
    except Exception as error:  # transformers, torch and safetensors raise their own types
        raise ValueError(f"model.bert: no BERT at '{name}': {first_line(error)}") from error
    for key in BERT_SIZES:
        if getattr(bert.config, key) != getattr(model.config, key):
            raise ValueError(
                f"model.{key} is {getattr(model.config, key)}, but '{name}' has {getattr(bert.config, key)}"
            )
    if bert.config.num_hidden_layers < max(model.config.num_text_layers, model.config.num_video_layers):
        raise ValueError(
            f"model.bert: '{name}' has {bert.config.num_hidden_layers} layers, but model.num_text_layers is "
            f"{model.config.num_text_layers} and model.num_video_layers {model.config.num_video_layers}"
        )
    for tower in (model.video_encoder.bert, model.text_encoder):
        own = tower.state_dict()
        load_strictly(tower, {key: value for key, value in bert.state_dict().items() if key in own}, where=name)


def shapes(weights: Mapping[str, Tensor], *, where: str) -> dict[str, int]:
    """The part of the configuration that follows from tensor shapes."""

    def num_layers(tower: str) -> int:
        prefix = f"{tower}.encoder.layer."
        return len({key[len(prefix) :].split(".")[0] for key in weights if key.startswith(prefix)})

    try:
        hidden_size, feature_dim = weights["video_encoder.videomlp.linear1.weight"].shape
        classifier = weights.get("video_encoder.classifier.bias")
        return {
            **({} if classifier is None else {"num_labels": len(classifier)}),
            "feature_dim": feature_dim,
            "hidden_size": hidden_size,
            "intermediate_size": len(weights["text_encoder.encoder.layer.0.intermediate.dense.weight"]),
            "num_video_layers": num_layers("video_encoder.bert"),
            "num_text_layers": num_layers("text_encoder"),
            "vocab_size": len(weights["text_encoder.embeddings.word_embeddings.weight"]),
            "max_position_embeddings": len(weights["text_encoder.embeddings.position_embeddings.weight"]),
        }
    except KeyError as error:
        raise ValueError(
            f"{where} is not a VideoCLIP checkpoint: it has no {error.args[0]}; nor has it the weights of OpenAI's CLIP"
        ) from error
