"""Tokenizers: which folders and names are taken, special ids, and how texts are cut."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from mmpt_plugin.batch import pad_text
from mmpt_plugin.tokenizer import describe_tokenizer, load_tokenizer, num_ids, special_ids, token_ids, tokenize

WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "chop", "the", "tomato", "##es", "a"]

LETTERS = [chr(code) for code in range(ord("a"), ord("z") + 1)]
GOLDEN = Path(__file__).parent / "golden" / "clip_family" / "tokenizer"
CASES = json.loads((GOLDEN / "cases.json").read_text())["cases"]
CLIP_WORDS = [
    *LETTERS,
    *(f"{letter}</w>" for letter in LETTERS),
    "ch",
    "cho",
    "chop</w>",
    "<|startoftext|>",
    "<|endoftext|>",
]


@pytest.fixture
def vocabulary(tmp_path):
    (tmp_path / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    return tmp_path


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
    with pytest.raises(
        ValueError, match=r"no tokenizer at .*: it contains none of vocab.txt, tokenizer.json, vocab.json"
    ):
        load_tokenizer(str(tmp_path))


def test_a_vocabulary_without_special_tokens_is_refused(tmp_path):
    (tmp_path / "vocab.txt").write_text("[PAD]\n[UNK]\n[SEP]\na\nb\nc\nd\ne\n")
    with pytest.raises(ValueError, match=r"can't be used: its 8 word pieces lack \['\[CLS\]'\]"):
        load_tokenizer(str(tmp_path))


def test_a_tokenizer_of_another_kind_is_refused(tmp_path):
    Tokenizer(models.BPE(vocab={"a": 0, "b": 1, "ab": 2}, merges=[("a", "b")])).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(ValueError, match="no tokenizer|can't be used: its 3 word pieces lack"):
        load_tokenizer(str(tmp_path))


@pytest.fixture(params=["files", "saved"])
def clip_vocabulary(tmp_path, request):
    """CLIP's two files: letters, within a word and at its end, and `chop` from three merges; ids in this order."""
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


@pytest.mark.parametrize("saved", [False, True])
def test_clip_s_texts_have_the_ids_that_openai_s_code_gives_them(tmp_path, saved):
    """Mojibake, HTML entities, ligatures, full-width letters and capitals that have no simple lower case among them."""
    tokenizer = load_tokenizer(str(GOLDEN))
    if saved:
        tokenizer.save_pretrained(str(tmp_path))
        tokenizer = load_tokenizer(str(tmp_path))
    assert len(CASES) == 38
    for case in CASES:
        assert tokenize([case["text"]], tokenizer, max_tokens=1000) == ([case["ids"]], [False]), case["text"]
        for length in (12, 32, 77):
            ids, mask = token_ids([case["text"]], tokenizer, max_length=length)
            assert ids[mask].tolist() == case[f"input_ids_{length}"], case["text"]


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


def test_a_vocabulary_that_leaves_out_ids_needs_as_many_as_its_largest():
    """A part of CLIP's vocabulary, with the ids of the whole: one embedding per word piece would be too few."""
    tokenizer = load_tokenizer(str(GOLDEN))
    about = describe_tokenizer(tokenizer, name="t")
    assert len(tokenizer) < 1000
    assert about["sep_id"] == 49407
    assert about["vocab_size"] == num_ids(tokenizer) == 49408
