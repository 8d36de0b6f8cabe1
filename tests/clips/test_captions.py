"""Subtitle files read and checked, captions tokenised."""

import hashlib
import json

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mmpt_plugin.clips.batch import pad_text
from mmpt_plugin.clips.captions import (
    Caption,
    check_captions,
    describe_tokenizer,
    load_tokenizer,
    read_captions,
    special_ids,
    token_ids,
    tokenize,
)

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

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "chop", "the", "tomato", "##es", "a"]


@pytest.fixture
def vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    return tmp_path


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
        ("a.txt", b"", r"suffix '.txt' is none of .vtt, .srt, .jsonl"),
        ("a.vtt", b"hello", r"a.vtt: not WebVTT"),
        ("a.vtt", b"WEBVTTX\n", r"a.vtt: not WebVTT"),
        ("a.vtt", b"WEBVTT\n\n\xff\xfe", r"a.vtt are not in UTF-8: invalid start byte at byte 8"),
        ("a.vtt", b"WEBVTT\n\n00:01.000 --> 2\nlost\n", r"a.vtt:3: no cue"),
        ("a.vtt", b"WEBVTT\n\n00:01.000 --> 00:99.000\nlost\n", r"a.vtt:3: no cue"),
        ("a.vtt", b"WEBVTT\n\n00:01.000 --> 00:02.000\nx\n00:02.000 --> 00:03.000\ny\n", r"a.vtt:5: no cue"),
        ("a.vtt", b"WEBVTT\n\n00:01.000 --> 00:02.000\nx\n\nits second half\n", r"a.vtt:6: no cue"),
        ("a.srt", b"1\n00:00:01,000 --> 00:00:02,000\nx\n\nNOTE y\n", r"a.srt:5: no cue"),
        ("a.jsonl", b'{"start": 1, "end": 2, "text": "x"}\n{"start": 1}\n', r"a.jsonl:2: a line holds start, end"),
        ("a.jsonl", b'{"start": "1", "end": 2, "text": "x"}\n', r"a.jsonl:1: .* are numbers"),
        ("a.jsonl", b'{"start": 1, "end": 2, "text": 7}\n', r"a.jsonl:1: .* is a string"),
        ("a.jsonl", b"[1, 2]\n", r"a.jsonl:1: a line holds"),
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
        ([(5, 6), (1, 2)], r"x.vtt, caption 2 \(1 to 2 s\): out of order, the one before starts at 5 s"),
        ([(-1, 2)], r"x.vtt, caption 1 \(-1 to 2 s\): its time is negative"),
        ([(3, 2)], r"x.vtt, caption 1 \(3 to 2 s\): it ends before it starts"),
        ([(1, float("nan"))], r"x.vtt, caption 1 \(1 to nan s\): its times are not finite"),
        ([(1, 2), (8, 12)], r"x.vtt, caption 2 \(8 to 12 s\): the video is shorter, 10 s"),
        ([(1, 2), (10.25, 10.75)], r"x.vtt, caption 2 \(10.25 to 10.75 s\): the video is shorter, 10 s"),
    ],
)
def test_impossible_times_are_named(times, message):
    captions = [Caption(float(a), float(b), "") for a, b in times]
    with pytest.raises(ValueError, match=message):
        check_captions(captions, where="x.vtt", duration=10.0)


def test_possible_times_pass():
    check_captions([Caption(0.0, 5.0, ""), Caption(0.0, 2.0, ""), Caption(9.5, 11.0, "")], where="x", duration=10.0)
    check_captions([Caption(0.0, 5.0, ""), Caption(1e6, 1e6, "")], where="x", duration=None)


def test_a_folder_may_hold_a_vocabulary_alone(vocabulary):
    tokenizer = load_tokenizer(str(vocabulary))
    assert tokenize(["Chop the tomatoes", "a plum"], tokenizer) == ([[5, 6, 7, 8], [9, 1]], [False, False])


def test_a_folder_may_be_one_that_a_tokenizer_saved(vocabulary, tmp_path):
    load_tokenizer(str(vocabulary)).save_pretrained(str(tmp_path / "saved"))
    (tmp_path / "saved" / "vocab.txt").unlink(missing_ok=True)
    assert tokenize(["Chop the tomatoes"], load_tokenizer(str(tmp_path / "saved"))) == ([[5, 6, 7, 8]], [False])


def test_texts_are_cut_to_characters_then_to_tokens_and_counted(vocabulary):
    """'the tomatoes' is cut to 'the tomato', 'a a a a' to three of its four pieces."""
    tokenizer = load_tokenizer(str(vocabulary))
    ids, cut = tokenize(["the tomatoes", "a a a a", "a a a", ""], tokenizer, max_tokens=3, max_characters=10)
    assert ids == [[6, 7], [9, 9, 9], [9, 9, 9], []]
    assert cut == [True, True, False, False]
    assert tokenize([], tokenizer) == ([], [])


def test_a_folder_without_a_vocabulary_is_named(tmp_path):
    """transformers makes a tokenizer of it that maps every word to [UNK]."""
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "BertTokenizer"}))
    with pytest.raises(ValueError, match=r"no tokenizer at .*: it holds none of vocab.txt, tokenizer.json, vocab.json"):
        load_tokenizer(str(tmp_path))


def test_a_vocabulary_without_special_tokens_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[SEP]\na\nb\nc\nd\ne\n")
    with pytest.raises(ValueError, match=r"can't be used: its 8 word pieces lack \['\[CLS\]'\]"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="no tokenizer|can't be used: its 3 word pieces lack"):
        load_tokenizer(str(tmp_path))


LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
CLIP_WORDS = [
    *LETTERS,
    *(f"{letter}</w>" for letter in LETTERS),
    "ch",
    "cho",
    "chop</w>",
    "<|startoftext|>",
    "<|endoftext|>",
]


@pytest.fixture(params=["files", "saved"])
def clip_vocabulary(tmp_path, request):
    """CLIP's two files: letters, within a word and at its end, and `chop` out of three merges; ids as they stand."""
    (tmp_path / "vocab.json").write_text(json.dumps({word: number for number, word in enumerate(CLIP_WORDS)}))
    (tmp_path / "merges.txt").write_text("#version: 0.2\nc h\nch o\ncho p</w>\n")
    if request.param == "files":
        return tmp_path
    load_tokenizer(str(tmp_path)).save_pretrained(str(tmp_path / "saved"))
    return tmp_path / "saved"


def test_clip_s_texts_stand_between_its_start_and_its_end(clip_vocabulary):
    """54 is chop, 26 a at a word's end, 5 f, 55 the start, 56 the end, which pads too."""
    tokenizer = load_tokenizer(str(clip_vocabulary))
    assert tokenize(["Chop a", "fa"], tokenizer) == ([[54, 26], [5, 26]], [False, False])
    ids, mask = token_ids(["chop a fa", "chop"], tokenizer, max_length=6)
    assert ids.tolist() == [[55, 54, 26, 5, 26, 56], [55, 54, 56, 56, 56, 56]]
    assert mask.tolist() == [[True] * 6, [True] * 3 + [False] * 3]
    described = describe_tokenizer(tokenizer, name="toy")
    assert described == {
        "name": "toy",
        "vocab_size": 57,
        "vocab_sha256": hashlib.sha256("\n".join(CLIP_WORDS).encode()).hexdigest(),
        "cls_id": 55,
        "sep_id": 56,
        "pad_id": 56,
    }


def test_a_tokenizer_may_put_nothing_before_a_text(tmp_path):
    """SigLIP's way: words, then the end."""
    words = Tokenizer(models.WordLevel({"<pad>": 0, "</s>": 1, "<unk>": 2, "chop": 3, "stir": 4}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    words.post_processor = processors.TemplateProcessing(single="$A </s>", special_tokens=[("</s>", 1)])
    special = {"eos_token": "</s>", "pad_token": "<pad>", "unk_token": "<unk>"}
    PreTrainedTokenizerFast(tokenizer_object=words, **special).save_pretrained(str(tmp_path))
    tokenizer = load_tokenizer(str(tmp_path))
    assert special_ids(tokenizer) == {"cls_id": None, "sep_id": 1, "pad_id": 0}
    ids, mask = pad_text(np.array([0, 2]), np.array([2, 1]), np.array([3, 4, 3]), cls_id=None, sep_id=1, pad_id=0)
    assert (
        ids.tolist() == token_ids(["chop stir", "chop"], tokenizer, max_length=9)[0].tolist() == [[3, 4, 1], [3, 1, 0]]
    )
    assert mask.tolist() == [[True, True, True], [True, True, False]]


@pytest.mark.parametrize("name", ["./nowhere", "/no/where", "data/no/where"])
def test_a_folder_that_is_not_there_is_not_looked_for_on_the_hub(name):
    with pytest.raises(ValueError, match=f"no tokenizer at '{name}': there is no such folder"):
        load_tokenizer(name)


def test_an_unknown_hub_name_is_one_clear_line(monkeypatch):
    def unknown(name, **options):
        assert options["trust_remote_code"] is False
        raise OSError(f"{name} is no valid model identifier\nand much advice")

    monkeypatch.setattr(AutoTokenizer, "from_pretrained", unknown)
    with pytest.raises(ValueError, match=r"'bert-bass', neither as a folder nor as a hub name: .* identifier$"):
        load_tokenizer("bert-bass")


def test_a_description_tells_vocabularies_apart(vocabulary):
    described = describe_tokenizer(load_tokenizer(str(vocabulary)), name="toy")
    digest = hashlib.sha256("\n".join(WORDS).encode()).hexdigest()
    special = {"cls_id": 2, "sep_id": 3, "pad_id": 0}
    assert described == {"name": "toy", "vocab_size": 10, "vocab_sha256": digest} | special
