"""Rolling captions: each repeats the line before it and adds words, as YouTube's automatic captions and roll-up
captions on television do.

A line that YouTube adds to the screen comes three times: word by word, alone in a cue of 10 ms, and above the next
line. Here every word stays where it is first said.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from mmpt_plugin.shards.captions import Caption

ADJACENT = 0.5  # seconds between two cues at most, for one to repeat the other
FLASH = 0.05  # seconds: nobody reads a shorter cue
LINE = 2  # words that a line has at least, for its repetition to be a sign


def unroll(captions: Sequence[Caption]) -> tuple[list[Caption], int]:
    """The captions without rolling repetition, and how many lost words or all.

    What a cue has in common with the end of the one before is repetition only where there is a sign for it, since
    people say a word twice: one of the two lasts no time (`FLASH`), or half of the file's cues, and no fewer than two,
    begin with a line of the one before or are part of it.
    """
    pairs = list(pairwise(captions))
    num_rolling = sum(rolls(before, caption) for before, caption in pairs)
    everywhere = num_rolling >= 2 and 2 * num_rolling >= len(pairs)
    kept, num_repeated = [*captions[:1]], 0
    for before, caption in pairs:
        number = repeated_words(before, caption)
        flash = min(before.end - before.start, caption.end - caption.start) <= FLASH
        if number == 0 or not (everywhere or flash):
            kept.append(caption)
            continue
        num_repeated += 1
        if new := caption.text.split()[number:]:
            kept.append(replace(caption, text=" ".join(new)))
        else:
            kept[-1] = replace(kept[-1], end=max(kept[-1].end, caption.end))
    return kept, num_repeated


def rolls(before: Caption, caption: Caption) -> bool:
    """Whether a cue repeats a line of the one before, and is not just the same cue again."""
    return before.text != caption.text and repeated_words(before, caption) >= LINE


def repeated_words(before: Caption, caption: Caption) -> int:
    """How many words of a cue, from its first, end the cue before, if it follows at once: all of the one's words, or
    all of the other's, or at least a line of each."""
    if not before.start <= caption.start <= before.end + ADJACENT:
        return 0
    said, words = before.text.split(), caption.text.split()
    for number in range(min(len(said), len(words)), 0, -1):
        if said[-number:] == words[:number]:
            return number if number >= LINE or number in (len(said), len(words)) else 0
    return 0
