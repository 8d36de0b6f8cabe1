"""Remove repetition in ASR captions, which often begin with the last words of the previous caption."""

from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Literal

from mmpt_plugin.shards.captions import Caption

Unit = Literal["word", "character"]


def deduplicate(
    captions: Sequence[Caption], *, previous_keeps: Callable[[], bool], unit: Unit = "word"
) -> list[Caption]:
    """The captions without repeated words and without empty captions.

    A caption without new words is dropped; one that contains all of the previous caption and more replaces it. If only
    the end of the previous caption is repeated, `previous_keeps()` decides which of the two keeps it (in training, a
    fair coin).

    With unit `word`, the longest repetition is removed. With `character`, which VideoCLIP's training data used, it is
    the shortest, even if that is a single letter: "first line", "e second" become "first lin", "e second".
    """
    kept: list[Caption] = []
    for caption in captions:
        caption = replace(caption, text=" ".join(caption.text.split("\n")).strip())
        if caption.text:
            add_caption(caption, kept, previous_keeps, unit)
    return kept


def add_caption(caption: Caption, kept: list[Caption], previous_keeps: Callable[[], bool], unit: Unit) -> None:
    """Append a caption to `kept` without the repeated words; this may change or remove the last caption in `kept`."""
    if not kept:
        kept.append(caption)
        return
    last = kept[-1]
    said, before = split(caption.text, unit), split(last.text, unit)
    if before[-len(said) :] == said:
        kept[-1] = replace(last, end=max(last.end, caption.end))
        return
    if said[: len(before)] == before:
        kept[-1] = Caption(min(last.start, caption.start), max(last.end, caption.end), caption.text)
        return
    repeated = overlap(before, said, unit)
    if not repeated:
        kept.append(caption)
    elif previous_keeps():
        border = max(last.end, caption.start)
        kept[-1] = replace(last, end=border)
        if rest := join(said[repeated:], unit):
            kept.append(Caption(border, max(caption.end, border), rest))
    else:
        kept.pop()
        if rest := join(before[:-repeated], unit):
            kept.append(Caption(last.start, min(last.end, caption.start), rest))
        kept.append(caption)


def overlap(before: Sequence[str], said: Sequence[str], unit: Unit) -> int:
    """The number of units at the end of `before` that `said` begins with."""
    lengths = range(1, min(len(before), len(said)) + 1)
    for k in lengths if unit == "character" else reversed(lengths):
        if before[-k:] == said[:k]:
            return k
    return 0


def split(text: str, unit: Unit) -> Sequence[str]:
    """The text's words, or the text itself as a sequence of characters."""
    return text if unit == "character" else text.split()


def join(units: Sequence[str], unit: Unit) -> str:
    """The reverse of `split`, without surrounding blanks."""
    return ("" if unit == "character" else " ").join(units).strip()
