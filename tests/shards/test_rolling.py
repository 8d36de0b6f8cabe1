"""Rolling captions say each phrase once, and people may say a word twice."""

import json

import pytest

from mmpt_plugin.shards.captions import Caption, read_captions
from mmpt_plugin.shards.rolling import unroll

# As YouTube serves automatic captions: two lines on the screen, the lower one word by word, 10 ms between two lines.
YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.070 align:start position:0%
\x20
hello<00:00:00.480><c> everyone</c><00:00:00.960><c> today</c>

00:00:02.070 --> 00:00:02.080 align:start position:0%
hello everyone today
\x20

00:00:02.080 --> 00:00:04.390 align:start position:0%
hello everyone today
we<00:00:02.399><c> are</c><00:00:02.560><c> going</c><00:00:03.120><c> to</c><00:00:03.520><c> chop</c>

00:00:04.390 --> 00:00:04.400 align:start position:0%
we are going to chop
\x20

00:00:04.400 --> 00:00:06.710 align:start position:0%
we are going to chop
chop<00:00:04.799><c> the</c><00:00:05.279><c> tomato</c>

00:00:06.710 --> 00:00:06.720 align:start position:0%
chop the tomato
\x20

00:00:06.720 --> 00:00:07.500 align:start position:0%
chop the tomato
[Music]

00:00:07.500 --> 00:00:07.510 align:start position:0%
[Music]
\x20

00:00:12.000 --> 00:00:13.990 align:start position:0%
\x20
stir<00:00:12.480><c> it</c>

00:00:13.990 --> 00:00:14.000 align:start position:0%
stir it
\x20

00:00:14.000 --> 00:00:16.000 align:start position:0%
stir it
stir<00:00:14.480><c> it</c>
"""

PHRASES = [
    Caption(0.16, 2.08, "hello everyone today"),
    Caption(2.08, 4.4, "we are going to chop"),
    Caption(4.4, 6.72, "chop the tomato"),
    Caption(6.72, 7.51, "[Music]"),
    Caption(12.0, 14.0, "stir it"),
    Caption(14.0, 16.0, "stir it"),
]


@pytest.mark.parametrize("kind", ["vtt", "srt", "jsonl"])
def test_each_phrase_of_youtube_s_captions_comes_once(tmp_path, kind):
    """The phrase that is really said twice stays twice."""
    path = tmp_path / f"v.{kind}"
    (tmp_path / "v.vtt").write_text(YOUTUBE)
    cues = read_captions(tmp_path / "v.vtt")
    if kind == "srt":
        path.write_text("\n\n".join(f"{i}\n{srt(c.start)} --> {srt(c.end)}\n{c.text}" for i, c in enumerate(cues, 1)))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps({"start": c.start, "end": c.end, "text": c.text}) + "\n" for c in cues))
    assert unroll(read_captions(path)) == (PHRASES, 9)


def srt(time):
    return f"00:00:{int(time):02d},{round(time % 1 * 1000):03d}"


def spoken(*rows):
    return [Caption(float(start), float(end), text) for start, end, text in rows]


def test_roll_up_captions_without_short_cues():
    """Television: two lines on the screen, the upper one moves out."""
    cues = spoken(
        (0, 2, "now we chop"), (2, 4, "now we chop the tomato and"), (4, 6, "the tomato and stir it"), (6, 8, "stir it")
    )
    assert unroll(cues) == (spoken((0, 2, "now we chop"), (2, 4, "the tomato and"), (4, 8, "stir it")), 3)


@pytest.mark.parametrize(
    "rows",
    [
        [(0, 2, "Stir."), (2, 4, "Stir.")],
        [(0, 2, "Stir."), (2, 4, "Stir."), (4, 6, "Stir."), (6, 8, "Stir.")],
        [(0, 2, "Stir it well."), (5, 7, "Stir it well.")],
        [(0, 2, "Stir it well."), (2, 4, "Stir it well.")],
        [(0, 2, "Stir."), (2, 4, "Stir. Now add salt.")],
        [(0, 2, "Okay."), (2, 4, "Okay. Go."), (4, 6, "Go. Now.")],
        [(0, 2, "Add the salt"), (2, 4, "salt the water")],
        [(0, 2, "we chop and"), (2, 4, "we chop and stir"), (9, 12, "then add"), (12, 14, "salt")],
        [(0, 0.03, "one"), (0.03, 0.06, "two")],
        [(0, 2, "Stir."), (2, 2.04, "It.")],
        [(0, 2, ""), (2, 2.01, ""), (2.01, 4, "Stir.")],
        [(5, 6, "chop it"), (1, 1.01, "chop it")],
        [],
    ],
)
def test_people_may_say_a_word_twice(rows):
    assert unroll(spoken(*rows)) == (spoken(*rows), 0)


def said(*texts, pause=0.0):
    """One caption a second, each `pause` shorter than that."""
    return [Caption(float(second), second + 1 - pause, text) for second, text in enumerate(texts)]


def test_captions_roll_where_two_or_more_repeat_a_line_of_two_words():
    kept, num_repeated = unroll(said("a b c", "b c d e", "d e f g"))
    assert ([caption.text for caption in kept], num_repeated) == (["a b c", "d e", "f g"], 2)
    once = said("a b c", "b c d e")
    assert unroll(once) == (once, 0)


def test_half_of_the_captions_are_enough_to_be_rolling():
    """Two of four pairs; with one more caption two of five are not."""
    half = said("a b c", "b c d", "x", "y z w", "z w v")
    assert unroll(half)[1] == 2
    assert unroll([*half, Caption(9.0, 10.0, "u")])[1] == 0


@pytest.mark.parametrize(("pause", "rolls"), [(0.4, True), (0.6, False)])
def test_a_caption_repeats_the_one_before_if_it_follows_within_half_a_second(pause, rolls):
    assert unroll(said("a b c", "b c d e", "d e f g", pause=pause))[1] == (2 if rolls else 0)


def test_the_same_words_several_times_are_no_sign_of_rolling():
    shouted = said("go now", "go now", "go now")
    assert unroll(shouted) == (shouted, 0)


@pytest.mark.parametrize(("seconds", "number"), [(0.01, 1), (0.05, 1), (0.1, 0)])
def test_a_caption_too_short_to_read_repeats_the_one_before(seconds, number):
    before = Caption(0.0, 2.0, "go now")
    kept, num_repeated = unroll([before, Caption(2.0, 2.0 + seconds, "go now")])
    assert num_repeated == number
    assert len(kept) == 2 - number
