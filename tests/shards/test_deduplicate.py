"""Repeated words in ASR captions: by character as the original, equal to its recordings; by word as ours."""

import json
from pathlib import Path

import pytest

from mmpt_plugin.shards.captions import Caption
from mmpt_plugin.shards.deduplicate import deduplicate

RECORDED = json.loads((Path(__file__).parents[1] / "golden" / "dedup.json").read_text())


def captions(columns):
    rows = zip(columns["start"], columns["end"], columns["text"], strict=True)
    return [Caption(float(start), float(end), text) for start, end, text in rows if isinstance(text, str)]


def texts(*spoken, previous_keeps, unit="word"):
    rows = [Caption(float(i), float(i + 1), text) for i, text in enumerate(spoken)]
    return [c.text for c in deduplicate(rows, previous_keeps=lambda: previous_keeps, unit=unit)]


@pytest.mark.parametrize("number", range(len(RECORDED)))
@pytest.mark.parametrize(
    ("previous_keeps", "key"), [(True, "overlap_stays_in_previous"), (False, "overlap_moves_to_current")]
)
def test_by_character_equals_the_recordings(number, previous_keeps, key):
    case = RECORDED[number]
    kept = deduplicate(captions(case["input"]), previous_keeps=lambda: previous_keeps, unit="character")
    assert kept == captions(case[key])


def test_by_word_no_word_is_cut():
    """By character the e that ends one line and begins the next would move, and leave 'first lin'."""
    assert texts("first line", "e second", previous_keeps=False) == ["first line", "e second"]
    assert texts("first line", "e second", previous_keeps=False, unit="character") == ["first lin", "e second"]


def test_by_word_the_longest_repetition_goes():
    said = "we cut and we cut", "we cut and we cut the tomato"
    assert texts(*said, previous_keeps=True) == ["we cut and we cut the tomato"]
    said = "now we cut and we", "we cut and we stir"
    assert texts(*said, previous_keeps=True) == ["now we cut and we", "stir"]
    said = "now we stir we stir", "we stir we stir it"
    assert texts(*said, previous_keeps=True) == ["now we stir we stir", "it"]
    assert texts(*said, previous_keeps=False) == ["now", "we stir we stir it"]


def test_a_caption_that_says_nothing_new_lengthens_the_last():
    kept = deduplicate([Caption(0.0, 2.0, "stir it"), Caption(1.0, 5.0, "it")], previous_keeps=lambda: True)
    assert kept == [Caption(0.0, 5.0, "stir it")]
    assert texts("we admit", "it", previous_keeps=True) == ["we admit", "it"]


def test_what_moves_takes_its_time_along():
    rows = [Caption(0.0, 3.0, "we cut the"), Caption(2.0, 5.0, "the tomato")]
    stays = deduplicate(rows, previous_keeps=lambda: True)
    assert stays == [Caption(0.0, 3.0, "we cut the"), Caption(3.0, 5.0, "tomato")]
    moves = deduplicate(rows, previous_keeps=lambda: False)
    assert moves == [Caption(0.0, 2.0, "we cut"), Caption(2.0, 5.0, "the tomato")]
