"""Captions: subtitle files read and checked, their text as word pieces. The tokenizer's home."""

import hashlib
import html
import json
import math
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

from jaxtyping import Bool, Int
from torch import Tensor
from transformers import (  # type: ignore[attr-defined]
    AutoTokenizer,
    BertTokenizerFast,
    CLIPTokenizerFast,
    PreTrainedTokenizerBase,
)

from mmpt_plugin.checkpoint import first_line

SUFFIXES = (".vtt", ".srt", ".jsonl")

TIME = r"(?:(\d+):)?([0-5]?\d):([0-5]\d)[.,](\d{3})"
TIMES = re.compile(rf"{TIME}\s*-->\s*{TIME}(?:\s.*)?")
MARKUP = re.compile(r"<[^>]*>|\{\\[^}]*\}")
NO_CUE = ("WEBVTT", "NOTE", "STYLE", "REGION")


@dataclass(frozen=True, slots=True)
class Caption:
    """What is said from `start` to `end`, in seconds."""

    start: float
    end: float
    text: str


def read_captions(path: Path) -> list[Caption]:
    """The captions of a WebVTT or SubRip file, or of lines `{"start": ..., "end": ..., "text": ...}`, all in UTF-8.

    Text loses its markup and line breaks. What can't be understood is a ValueError with its line, never skipped.
    """
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise ValueError(f"captions {path}: suffix '{path.suffix}' is none of {', '.join(SUFFIXES)}")
    try:
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"captions {path} are not in UTF-8: {error.reason} at byte {error.start}") from error
    except OSError as error:
        raise ValueError(f"captions {path} can't be read: {error.strerror}") from error
    if suffix == ".jsonl":
        return [from_json(line, f"{path}:{number}") for number, line in enumerate(lines, 1) if line.strip()]
    if suffix == ".srt":
        return list(cues([line.strip() for line in lines], path))
    if re.match(r"WEBVTT(\s|$)", lines[0]) is None:
        raise ValueError(f"captions {path}: not WebVTT: its first line is not WEBVTT")
    return list(cues(lines, path, no_cue=NO_CUE))


def cues(lines: Sequence[str], path: Path, *, no_cue: Sequence[str] = ()) -> Iterator[Caption]:
    """One caption for each block of lines, but for those whose first word is in `no_cue`.

    Empty lines divide blocks. A line of blanks does not in WebVTT: the captions that YouTube makes contain such lines.
    """
    for empty, numbered in groupby(enumerate(lines, 1), key=lambda line: not line[1]):
        if empty:
            continue
        numbers, block = zip(*numbered, strict=True)
        arrows = [i for i, line in enumerate(block) if "-->" in line]
        if not arrows and block[0].split(maxsplit=1)[:1] in [[word] for word in no_cue]:
            continue
        times = TIMES.fullmatch(block[arrows[0]].strip()) if arrows in ([0], [1]) else None
        if times is None:
            where = numbers[arrows[-1] if arrows else 0]
            raise ValueError(f"captions {path}:{where}: no cue, that is times like 00:01.500 --> 00:03.000, then text")
        text = html.unescape(MARKUP.sub("", " ".join(block[arrows[0] + 1 :])))
        yield Caption(seconds(times.groups()[:4]), seconds(times.groups()[4:]), " ".join(text.split()))


def seconds(parts: Sequence[str | None]) -> float:
    hours, minutes, whole, thousandths = (int(part or 0) for part in parts)
    return hours * 3600 + minutes * 60 + whole + thousandths / 1000


def from_json(line: str, where: str) -> Caption:
    try:
        record = json.loads(line)
        start, end, text = (record[key] for key in ("start", "end", "text"))
        if not isinstance(text, str) or isinstance(start, str) or isinstance(end, str):
            raise TypeError("start and end are numbers, text is a string")
        return Caption(float(start), float(end), " ".join(text.split()))
    except (KeyError, TypeError, ValueError) as error:
        raise ValueError(f"captions {where}: a line holds start, end (seconds) and text: {error!r}") from error


def check_captions(captions: Sequence[Caption], *, where: str, duration: float | None = None) -> None:
    """ValueError, naming the record, for captions out of order, of negative or reversed times, or past the video.

    A caption must start within the video and may end up to one second after it: the last second of a video is
    seldom a whole one.
    """
    before = 0.0
    for number, caption in enumerate(captions, 1):
        span = f"{where}, caption {number} ({caption.start:g} to {caption.end:g} s)"
        if not (math.isfinite(caption.start) and math.isfinite(caption.end)):
            raise ValueError(f"{span}: its times are not finite")
        if caption.start < 0:
            raise ValueError(f"{span}: its time is negative")
        if caption.end < caption.start:
            raise ValueError(f"{span}: it ends before it starts")
        if caption.start < before:
            raise ValueError(f"{span}: out of order, the one before starts at {before:g} s")
        if duration is not None and (caption.start > duration or caption.end > duration + 1):
            raise ValueError(f"{span}: the video is shorter, {duration:g} s")
        before = caption.start


VOCABULARIES = ("vocab.txt", "tokenizer.json", "vocab.json")


def load_tokenizer(name: str) -> PreTrainedTokenizerBase:
    """A fast tokenizer of BERT, CLIP or SigLIP, by hub name or folder.

    Of a folder's files vocab.txt (BERT), vocab.json with merges.txt (CLIP), or tokenizer.json is enough.
    """
    folder = Path(name)
    if folder.is_dir():
        # Without these files transformers makes a tokenizer all the same, one that knows no word.
        if not any((folder / file).is_file() for file in VOCABULARIES):
            raise ValueError(f"no tokenizer at {folder}: it holds none of {', '.join(VOCABULARIES)}")
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
    lacking = [token for token in special if token not in vocabulary]
    if lacking or len(vocabulary) <= len(tokenizer.all_special_ids):
        raise ValueError(
            f"tokenizer '{name}' can't be used: its {len(vocabulary)} word pieces lack {lacking or 'words'}"
        )
    return tokenizer


def loader(folder: Path) -> Any:
    """What reads a folder's files, or a hub's."""
    config = folder / "tokenizer_config.json"
    named = json.loads(config.read_text()).get("tokenizer_class") or "" if config.is_file() else ""
    if not folder.is_dir() or (named and not named.startswith("Bert")):
        return AutoTokenizer
    return CLIPTokenizerFast if (folder / "vocab.json").is_file() and not named else BertTokenizerFast


def special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    """What the tokenizer puts before a text (cls_id; SigLIP's has nothing there), after it (sep_id), and what pads."""
    empty: list[int] = tokenizer("")["input_ids"]
    if not 1 <= len(empty) <= 2:
        raise ValueError(
            f"it puts {len(empty)} special tokens around a text, expected [CLS] and [SEP], or one at the end"
        )
    pad = tokenizer.pad_token_id
    return {
        "cls_id": empty[0] if len(empty) == 2 else None,
        "sep_id": empty[-1],
        "pad_id": empty[-1] if pad is None else pad,
    }


def describe_tokenizer(tokenizer: PreTrainedTokenizerBase, *, name: str) -> dict[str, Any]:
    """What data that holds its ids must remember: name, size and SHA-256 of the vocabulary, and special ids."""
    vocabulary = tokenizer.get_vocab()
    pieces = "\n".join(sorted(vocabulary, key=lambda piece: vocabulary[piece]))
    return {
        "name": name,
        "vocab_size": len(vocabulary),
        "vocab_sha256": hashlib.sha256(pieces.encode()).hexdigest(),
        **special_ids(tokenizer),
    }


def token_ids(
    texts: Sequence[str], tokenizer: PreTrainedTokenizerBase, *, max_length: int | None = None
) -> tuple[Int[Tensor, "B L"], Bool[Tensor, "B L"]]:
    """`[CLS] w1..wn [SEP] [PAD]..` of each text, cut to max_length ids, and the mask of what is not padding.

    Training data passes no max_length: a text is cut where it is encoded, by the model, as long as that reads.
    """
    encoded = tokenizer(
        list(texts),
        padding=True,
        truncation=max_length is not None,
        max_length=max_length,
        return_tensors="pt",
        verbose=False,
    )
    return encoded["input_ids"], encoded["attention_mask"].bool()


def tokenize(
    texts: Sequence[str],
    tokenizer: PreTrainedTokenizerBase,
    *,
    max_tokens: int = 32,
    max_characters: int | None = None,
) -> tuple[list[list[int]], list[bool]]:
    """Word piece ids of each text, without special tokens, and which texts were cut.

    A text is cut to max_characters, then its ids to max_tokens. The released VideoCLIP saw 96 and 32.
    """
    if not texts:
        return [], []
    kept = [text[:max_characters] for text in texts]
    rows = tokenizer(
        kept, add_special_tokens=False, return_attention_mask=False, return_token_type_ids=False, verbose=False
    )["input_ids"]
    cut = [len(row) > max_tokens or text != whole for row, text, whole in zip(rows, kept, texts, strict=True)]
    return [row[:max_tokens] for row in rows], cut
