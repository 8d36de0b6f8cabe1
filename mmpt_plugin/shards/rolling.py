"""Remove the repetition in rolling captions, where each cue repeats the previous line and adds words.

YouTube's automatic captions and roll-up captions on television are of this kind. Each line of a YouTube caption appears
three times: word by word, alone in a cue of 10 ms, and above the next line. `unroll` keeps the first occurrence.
"""

from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from mmpt_plugin.shards.captions import Caption

ADJACENT = 0.5  # seconds; maximum gap between a cue and one that repeats it
FLASH = 0.05  # seconds; a shorter cue is not meant to be read
LINE = 2  # minimum words in a line whose repetition counts as a sign of rolling captions


def unroll(captions: Sequence[Caption]) -> tuple[list[Caption], int]:
    """The captions without rolling repetition, and the number of captions that were shortened or removed.

    Speakers also repeat words. So words that a cue shares with the end of the previous cue are removed only if one of
    the two cues is very short (`FLASH`), or if at least half of the file's cues, and at least two, begin with a line of
    the previous cue or are part of it.
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
    """Whether a cue repeats a line of the previous cue, without being equal to it."""
    return before.text != caption.text and repeated_words(before, caption) >= LINE


def repeated_words(before: Caption, caption: Caption) -> int:
    """The number of words at the beginning of a cue that end the previous cue; 0 if the cue does not follow directly.

    Fewer words than a line (`LINE`) count only if they are all words of one of the cues.
    """
    if not before.start <= caption.start <= before.end + ADJACENT:
        return 0
    said, words = before.text.split(), caption.text.split()
    for number in range(min(len(said), len(words)), 0, -1):
        if said[-number:] == words[:number]:
            return number if number >= LINE or number in (len(said), len(words)) else 0
    return 0
