"""Tokenizers: loading, encoding text as token ids, and limiting the length of texts.

B texts, L tokens.
"""

import hashlib
import html
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import ftfy
import torch
from jaxtyping import Bool, Int
from torch import Tensor
from transformers import (  # type: ignore[attr-defined]
    AutoTokenizer,
    BertTokenizerFast,
    CLIPTokenizerFast,
    PreTrainedTokenizerBase,
)

from mmpt_plugin.errors import HALF_PAIR, first_line, shortened
from mmpt_plugin.files import read_json

LARGEST_ID = 2**31 - 1  # of int32, in which shards store ids
VOCABULARIES = ("vocab.txt", "tokenizer.json", "vocab.json")


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """Load a fast tokenizer of BERT, CLIP or SigLIP from a hub name or folder.

    A folder needs at least vocab.txt (BERT), vocab.json with merges.txt (CLIP), or tokenizer.json.
    """
    folder = Path(name)
    if folder.is_dir():
        # Without these files, transformers returns a tokenizer with an empty vocabulary instead of an error.
        if not any((folder / file).is_file() for file in VOCABULARIES):
            raise ValueError(f"no tokenizer at {folder}: it contains none of {', '.join(VOCABULARIES)}")
    elif folder.is_absolute() or name.startswith(".") or len(folder.parts) > 2:
        raise ValueError(f"no tokenizer at '{name}': there is no such folder")
    try:
        tokenizer: PreTrainedTokenizerBase = loader(folder).from_pretrained(name, trust_remote_code=False)
        vocabulary = tokenizer.backend_tokenizer.get_vocab(with_added_tokens=False)
        around = [*special_ids(tokenizer).values(), tokenizer.unk_token_id]
    except Exception as error:  # tokenizers raises plain Exceptions
        raise ValueError(
            f"no tokenizer '{name}', neither as a folder nor as a hub name: {first_line(error)}"
        ) from error
    special = [tokenizer.convert_ids_to_tokens(i) for i in around if i is not None]
    if max(vocabulary.values(), default=0) > LARGEST_ID:
        raise ValueError(f"tokenizer '{name}' can't be used: its largest id is {max(vocabulary.values())}")
    lacking = [token for token in special if token not in vocabulary]
    if lacking or len(vocabulary) <= len(tokenizer.all_special_ids):
        raise ValueError(
            f"tokenizer '{name}' can't be used: its {len(vocabulary)} word pieces lack {lacking or 'words'}"
        )
    return tokenizer


def loader(folder: Path) -> Any:
    """The tokenizer class that reads a folder's files, or those on the hub."""
    if not folder.is_dir():
        return AutoTokenizer
    config = folder / "tokenizer_config.json"
    named = read_json(config).get("tokenizer_class") or "" if config.is_file() else ""
    if not named:
        return CLIPTokenizerFast if (folder / "vocab.json").is_file() else BertTokenizerFast
    # AutoTokenizer would warn about our config.json, which is in the same folder.
    return {"Bert": BertTokenizerFast, "CLIP": CLIPTokenizerFast}.get(named[:4], AutoTokenizer)


def special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    """The ids before a text (cls_id; None for SigLIP), after it (sep_id), and of padding (pad_id)."""
    empty: list[int] = tokenizer("")["input_ids"]
    if not 1 <= len(empty) <= 2:
        raise ValueError(
            f"it adds {len(empty)} special tokens to a text, expected [CLS] and [SEP], or only one at the end"
        )
    pad = tokenizer.pad_token_id
    return {
        "cls_id": empty[0] if len(empty) == 2 else None,
        "sep_id": empty[-1],
        "pad_id": empty[-1] if pad is None else pad,
    }


def num_ids(tokenizer: PreTrainedTokenizerBase) -> int:
    """The number of ids that a model needs: one more than the largest, because a vocabulary may leave out some."""
    return max(tokenizer.get_vocab().values()) + 1


def describe_tokenizer(tokenizer: PreTrainedTokenizerBase, *, name: str) -> dict[str, Any]:
    """A record for data that stores its token ids: name, number of ids, SHA-256 of the vocabulary, and special ids."""
    vocabulary = tokenizer.get_vocab()
    pieces = "\n".join(sorted(vocabulary, key=lambda piece: vocabulary[piece]))
    return {
        "name": name,
        "vocab_size": num_ids(tokenizer),
        "vocab_sha256": hashlib.sha256(pieces.encode()).hexdigest(),
        **special_ids(tokenizer),
    }


def token_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_length: int | None = None
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """`[CLS] w1..wn [SEP] [PAD]..` for each text, cut to max_length ids, and a mask that is False for padding.

    Training data sets no max_length: the model cuts each text to its own maximum length.
    """
    encoded = tokenizer(
        cleaned(texts, tokenizer),
        padding=True,
        truncation=max_length is not None,
        max_length=max_length,
        return_tensors="pt",
        verbose=False,
    )
    return encoded["input_ids"], encoded["attention_mask"].bool()


def cleaned(texts: Sequence[str], tokenizer: PreTrainedTokenizerBase) -> list[str]:
    """The texts as the tokenizer's own code cleans them, where the fast tokenizer does not.

    OpenAI's code for CLIP repairs the encoding (ftfy), resolves HTML entities, twice, and makes texts lower case by
    Python's rules before it splits them. ValueError for a text that is not valid Unicode.
    """
    for text in texts:
        try:
            text.encode()
        except UnicodeEncodeError:
            raise ValueError(f"text {shortened(text)} has {HALF_PAIR}") from None
    if not isinstance(tokenizer, CLIPTokenizerFast):
        return list(texts)
    return [html.unescape(html.unescape(ftfy.fix_text(text))).lower() for text in texts]


def tokenize(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int = 32,
    max_characters: int | None = None,
) -> tuple[list[list[int]], list[bool]]:
    """Word piece ids of each text, without special tokens, and which texts were cut.

    A text is cut to max_characters, then its ids to max_tokens. The released VideoCLIP was trained with 96 and 32.
    """
    if not texts:
        return [], []
    texts = cleaned(texts, tokenizer)
    kept = [text[:max_characters] for text in texts]
    rows = tokenizer(
        kept, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]
    cut = [len(row) > max_tokens or text != whole for row, text, whole in zip(rows, kept, texts, strict=True)]
    return [row[:max_tokens] for row in rows], cut


def cut_text(
    ids: Int[Tensor, "B L"], mask: Bool[Tensor, "B L"], *, length: int
) -> tuple[Int[Tensor, "B _"], Bool[Tensor, "B _"]]:
    """At most `length` tokens per text; a text that is cut keeps its last token."""
    if ids.shape[1] <= length:
        return ids, mask
    last = last_token(mask)
    ends = ids.gather(1, last[:, None]).squeeze(1)
    kept = ids[:, :length].clone()
    kept[:, -1] = torch.where(last >= length, ends, kept[:, -1])
    return kept, mask[:, :length]


def last_token(mask: Bool[Tensor, "B L"]) -> Int[Tensor, " B"]:
    """The index of the last real token."""
    return (mask * torch.arange(mask.shape[1], device=mask.device)).amax(dim=1)
