"""Subtitle files read, checked and tokenised."""

import pytest

from mmpt_plugin.clips.captions import Caption, check_captions, load_tokenizer, read_captions, tokenize

VTT = """WEBVTT - a title

NOTE made by hand
over two lines

STYLE
::cue { color: red }

intro
00:01.000 --> 00:02.500 align:start position:10%
<v Anna>Now <c.loud>chop</c> the <00:01.500>tomato
&amp; the onion

01:00:03.000 --> 01:00:04.000
later
"""

SRT = """1
00:00:01,000 --> 00:00:02,500
First line
second line

2
00:00:03,000 --> 00:00:04,000
<i>bye</i>
"""


def test_webvtt(tmp_path):
    (tmp_path / "a.vtt").write_text("\ufeff" + VTT.replace("\n", "\r\n"), encoding="utf-8")
    assert read_captions(tmp_path / "a.vtt") == [
        Caption(1.0, 2.5, "Now chop the tomato & the onion"),
        Caption(3603.0, 3604.0, "later"),
    ]


def test_subrip(tmp_path):
    (tmp_path / "a.srt").write_text(SRT)
    assert read_captions(tmp_path / "a.srt") == [Caption(1.0, 2.5, "First line second line"), Caption(3.0, 4.0, "bye")]


def test_json_lines(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"start": 1, "end": 2.5, "text": "stir"}\n')
    assert read_captions(tmp_path / "a.jsonl") == [Caption(1.0, 2.5, "stir")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"suffix '.txt' is none of .vtt, .srt, .jsonl"),
        ("a.vtt", b"hello", r"a.vtt: no WebVTT"),
        ("a.vtt", b"WEBVTT\n\n\xff\xfe", r"a.vtt can't be read: 'utf-8'"),
        ("a.jsonl", b'{"start": 1}\n', r"a.jsonl:1: a line holds start, end"),
    ],
)
def test_an_unreadable_file_is_named(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path / name)


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([(5, 6), (1, 2)], r"x.vtt, caption 2 \(1 to 2 s\): out of order, the one before starts at 5 s"),
        ([(-1, 2)], r"x.vtt, caption 1 \(-1 to 2 s\): its time is negative"),
        ([(3, 2)], r"x.vtt, caption 1 \(3 to 2 s\): it ends before it starts"),
        ([(1, 2), (8, 12)], r"x.vtt, caption 2 \(8 to 12 s\): the video is shorter, 10 s"),
    ],
)
def test_impossible_times_are_named(times, message):
    captions = [Caption(float(a), float(b), "") for a, b in times]
    with pytest.raises(ValueError, match=message):
        check_captions(captions, where="x.vtt", duration=10.0)


def test_possible_times_pass():
    check_captions([Caption(0.0, 5.0, ""), Caption(0.0, 2.0, ""), Caption(9.5, 10.9, "")], where="x", duration=10.0)


def test_word_pieces_without_special_tokens_and_what_was_cut(kitchen):
    tokenizer = load_tokenizer(str(kitchen.root / "tokenizer"))
    ids, cut = tokenize(["Chop the tomato", "the the the the"], tokenizer, max_tokens=3)
    assert tokenizer.convert_ids_to_tokens(ids[0]) == ["chop", "the", "tomato"]
    assert len(ids[1]) == 3
    assert cut == 1


def test_a_tokenizer_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match="no tokenizer at"):
        load_tokenizer(str(tmp_path))
