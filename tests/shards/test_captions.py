"""Subtitle files read and checked, captions tokenised."""

import pytest

from mmpt_plugin.shards.captions import Caption, check_captions, read_captions

VTT = """WEBVTT - a title
Kind: captions

NOTE made by hand
over two lines

STYLE
::cue { color: red }

REGION
id:left

intro
00:01.000 --> 00:02.500 align:start position:10%
<v Anna>Now <c.loud>chop</c> the <00:01.500>tomato
&amp; the onion &lt;3

01:00:03.000 --> 01:00:04.000
later
"""

YOUTUBE = """WEBVTT
Kind: captions
Language: en

00:00:00.160 --> 00:00:02.070 align:start position:0%
\x20
hello<00:00:00.480><c> everyone</c>

00:00:02.070 --> 00:00:02.080 align:start position:0%
hello everyone
\x20
"""

SRT = """1
00:00:01,000 --> 00:00:02,500
First line
{\\an8}second line

2
00:00:03,000 --> 00:00:04,000
<i>bye</i>
"""


def test_webvtt_with_notes_styles_cue_names_settings_and_markup(tmp_path):
    (tmp_path / "a.vtt").write_text("\ufeff" + VTT.replace("\n", "\r\n"), encoding="utf-8")
    assert read_captions(tmp_path / "a.vtt") == [
        Caption(1.0, 2.5, "Now chop the tomato & the onion <3"),
        Caption(3603.0, 3604.0, "later"),
    ]


def test_a_line_of_blanks_does_not_end_a_webvtt_cue(tmp_path):
    (tmp_path / "a.vtt").write_text(YOUTUBE)
    assert read_captions(tmp_path / "a.vtt") == [
        Caption(0.16, 2.07, "hello everyone"),
        Caption(2.07, 2.08, "hello everyone"),
    ]


def test_subrip(tmp_path):
    (tmp_path / "a.srt").write_text(SRT)
    assert read_captions(tmp_path / "a.srt") == [Caption(1.0, 2.5, "First line second line"), Caption(3.0, 4.0, "bye")]


def test_a_line_of_blanks_ends_a_subrip_cue(tmp_path):
    (tmp_path / "a.srt").write_text(SRT.replace("\n\n", "\n \n"))
    assert len(read_captions(tmp_path / "a.srt")) == 2


def test_json_lines_with_any_line_separator_inside_a_text(tmp_path):
    (tmp_path / "a.jsonl").write_text('{"start": 1, "end": 2.5, "text": "stir\u2028well"}\n\n', encoding="utf-8")
    assert read_captions(tmp_path / "a.jsonl") == [Caption(1.0, 2.5, "stir well")]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.txt", b"", r"suffix '.txt' is not one of .vtt, .srt, .jsonl"),
        ("a.vtt", b"hello", r"a.vtt: not WebVTT"),
        ("a.vtt", b"WEBVTTX\n", r"a.vtt: not WebVTT"),
        ("a.vtt", b"WEBVTT\n\n\xff\xfe", r"a.vtt are not in UTF-8: invalid start byte at byte 8"),
        ("a.vtt", b"WEBVTT\n\n00:01.000 --> 2\nlost\n", r"a.vtt:3: not a cue"),
        ("a.vtt", b"WEBVTT\n\n00:01.000 --> 00:99.000\nlost\n", r"a.vtt:3: not a cue"),
        ("a.vtt", b"WEBVTT\n\n00:01.000 --> 00:02.000\nx\n00:02.000 --> 00:03.000\ny\n", r"a.vtt:5: not a cue"),
        ("a.vtt", b"WEBVTT\n\n00:01.000 --> 00:02.000\nx\n\nits second half\n", r"a.vtt:6: not a cue"),
        ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\nx\n\nNOTE y\n", r"a.srt:5: not a cue"),
        (
            "a.jsonl",
            b'{"start": 1, "end": 2, "text": "x"}\n{"start": 1}\n',
            r"a.jsonl:2: 'end' is missing, there is only start$",
        ),
        ("a.jsonl", b'{"start": "1", "end": 2, "text": "x"}\n', r"a.jsonl:1: 'start' must be a number, got \"1\"$"),
        ("a.jsonl", b'{"start": 1, "end": 2, "text": 7}\n', r"a.jsonl:1: 'text' must be a text, got 7$"),
        ("a.jsonl", b"[1, 2]\n", r"a.jsonl:1: expected an object with 'start', got \[1, 2\]$"),
        ("a.jsonl", b"{\n", r"a.jsonl:1: not valid JSON: "),
    ],
)
def test_what_cannot_be_understood_is_named_and_not_skipped(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=message):
        read_captions(tmp_path / name)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"b.vtt can't be read: No such file"):
        read_captions(tmp_path / "b.vtt")


@pytest.mark.parametrize(
    ("times", "message"),
    [
        ([(5, 6), (1, 2)], r"x.vtt, caption 2 \(1 to 2 s\): out of order, the previous caption starts at 5 s"),
        ([(-1, 2)], r"x.vtt, caption 1 \(-1 to 2 s\): its time is negative"),
        ([(3, 2)], r"x.vtt, caption 1 \(3 to 2 s\): it ends before it starts"),
        ([(1, float("nan"))], r"x.vtt, caption 1 \(1 to nan s\): its times must be finite"),
        ([(1, 2), (8, 12)], r"x.vtt, caption 2 \(8 to 12 s\): the video has only 10 s"),
        ([(1, 2), (10.25, 10.75)], r"x.vtt, caption 2 \(10.25 to 10.75 s\): the video has only 10 s"),
    ],
)
def test_impossible_times_are_named(times, message):
    captions = [Caption(float(a), float(b), "") for a, b in times]
    with pytest.raises(ValueError, match=message):
        check_captions(captions, where="x.vtt", duration=10.0)


def test_possible_times_pass():
    check_captions([Caption(0.0, 5.0, ""), Caption(0.0, 2.0, ""), Caption(9.5, 11.0, "")], where="x", duration=10.0)
    check_captions([Caption(0.0, 5.0, ""), Caption(1e6, 1e6, "")], where="x", duration=None)
