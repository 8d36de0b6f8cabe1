"""Captions from the files of HowTo100M and the original: complete, read in chunks, and malicious."""

import json
import pickle
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.shards import caption_sources
from mmpt_plugin.shards.caption_sources import caption_source, stream_object, within
from mmpt_plugin.shards.captions import Caption
from mmpt_plugin.shards.mmpt_shards import read_mmpt_shards
from mmpt_plugin.shards.plain_pickle import read_plain_pickle

GOLDEN = Path(__file__).parents[1] / "golden" / "mmpt_shards"
HOWTO100M = {
    "b": {"start": [4.0, 0.5], "end": [6.0, 4], "text": ["add sült", "chop it"]},
    "a": {"start": [0, 1, 2], "end": [1, 2, 3], "text": ["one", float("nan"), "\n"]},
    "c": {"start": [], "end": [], "text": []},
}


def narrations(path, wanted):
    return {narration.video_id: narration.read() for narration in caption_source(path)(wanted)}


@pytest.fixture(params=["json", "pickle"])
def howto100m(tmp_path, request):
    path = tmp_path / f"raw_caption.{request.param}"
    if request.param == "json":
        path.write_text(json.dumps(HOWTO100M))
    else:
        path.write_bytes(pickle.dumps(HOWTO100M, protocol=2))
    return path


def test_howto100m_s_captions_come_in_the_file_s_order_without_silence(howto100m):
    read = narrations(howto100m, ["a", "b"])
    assert read["b"] == [Caption(4.0, 6.0, "add sült"), Caption(0.5, 4.0, "chop it")]
    assert [caption.text for caption in read["a"]] == ["one", "\n"]
    assert list(read) == ["b", "a"]


@pytest.mark.parametrize("chunk", [1, 2, 7, 50, 10_000])
@pytest.mark.parametrize("indent", [None, 2])
def test_a_json_object_is_read_in_pieces_of_any_size(tmp_path, monkeypatch, chunk, indent):
    monkeypatch.setattr(caption_sources, "CHARACTERS_CHUNK", chunk)
    path = tmp_path / "raw_caption.json"
    content = {key: value for key, value in HOWTO100M.items() if key != "a"}
    path.write_text(json.dumps(content, indent=indent, ensure_ascii=False), encoding="utf-8")
    assert dict(stream_object(path)) == content


def test_a_long_value_is_not_parsed_from_its_start_for_every_piece(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_sources, "CHARACTERS_CHUNK", 10)
    lengths = []
    parse = json.JSONDecoder.raw_decode
    monkeypatch.setattr(
        json.JSONDecoder, "raw_decode", lambda self, text, at: lengths.append(len(text)) or parse(self, text, at)
    )
    path = tmp_path / "raw_caption.json"
    path.write_text(json.dumps({"a": ["caption"] * 1000}))
    assert dict(stream_object(path)) == {"a": ["caption"] * 1000}
    assert sum(lengths) < 5 * path.stat().st_size


@pytest.mark.parametrize("text", ["", "[1]", '{"a": {"start": [1', '{"a" 1}', '{"a": 1', "no"])
def test_json_that_is_damaged_is_named(tmp_path, text):
    path = tmp_path / "raw_caption.json"
    path.write_text(text)
    with pytest.raises(ValueError, match=r"raw_caption\.json is not a "):
        list(stream_object(path))


def test_a_damaged_value_does_not_read_the_rest_into_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(caption_sources, "CHARACTERS_CHUNK", 100)
    monkeypatch.setattr(caption_sources, "LONGEST", 1000)
    path = tmp_path / "raw_caption.json"
    path.write_text('{"a": {"start": [1, nothing' + " " * 10_000 + "}")
    with pytest.raises(ValueError, match="not a complete JSON object"):
        list(stream_object(path))


@pytest.mark.parametrize(
    "columns", [{"start": [1], "end": [2]}, {"start": [1], "end": [2, 3], "text": ["x"]}, 3, {"start": ["x"]}]
)
def test_columns_that_do_not_fit_are_named(tmp_path, columns):
    path = tmp_path / "raw_caption.json"
    path.write_text(json.dumps({"v": columns}))
    with pytest.raises(ValueError, match=r"raw_caption\.json, v: expected lists start, end and text"):
        narrations(path, ["v"])


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path):
    target = tmp_path / "written"

    class Hostile:
        def __reduce__(self):
            return (Path.write_text, (target, "x"))

    path = tmp_path / "raw_caption.pickle"
    path.write_bytes(pickle.dumps({"v": Hostile()}))
    with pytest.raises(ValueError, match=r"raw_caption\.pickle is not a pickle of plain .*it needs"):
        narrations(path, ["v"])
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"\x80\x04", b"text", pickle.dumps(np.float64(1))])
def test_other_pickles_are_named(tmp_path, content):
    (tmp_path / "x.pkl").write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.pkl is not a pickle of plain containers"):
        read_plain_pickle(tmp_path / "x.pkl")


def caption_folder(tmp_path, *names):
    for name in names:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(json.dumps({"start": 1, "end": 2, "text": name}))
    return caption_source(tmp_path)


@pytest.mark.parametrize(
    ("files", "video_id", "taken"),
    [
        (["v.en.jsonl"], "v", "v.en.jsonl"),
        (["v.en-US.jsonl"], "v", "v.en-US.jsonl"),
        (["v.en-orig.jsonl"], "v", "v.en-orig.jsonl"),
        (["v.zh-Hans.JSONL"], "v", "v.zh-Hans.JSONL"),
        (["v.en.jsonl", "v.de.jsonl", "v.jsonl"], "v", "v.jsonl"),
        (["a.b.c.jsonl", "a.b.jsonl"], "a.b", "a.b.jsonl"),
        (["a.b.en.jsonl", "a.en.jsonl"], "a.b", "a.b.en.jsonl"),
        (["x/v.en.jsonl", "v.jsonl"], "x/v", "x/v.en.jsonl"),
        (["x/v.jsonl", "y/v.en.jsonl"], "v", "x/v.jsonl"),
        (["x/y/v.en.jsonl", "x/w.jsonl"], "v", "x/y/v.en.jsonl"),
    ],
)
def test_a_caption_file_may_name_its_language(tmp_path, files, video_id, taken):
    source = caption_folder(tmp_path, *files)
    assert source.lacking([video_id]) == {}
    (narration,) = source([video_id])
    assert narration.where == str(tmp_path / taken)
    assert narration.read() == [Caption(1.0, 2.0, taken)]


def test_of_several_languages_none_is_guessed(tmp_path):
    source = caption_folder(tmp_path, "v.en.jsonl", "v.de.jsonl")
    assert source.lacking(["v"]) == {"v": f"several files in {tmp_path}, v.de.jsonl, v.en.jsonl: keep one"}
    assert list(source(["v"])) == []


def test_of_several_files_in_subfolders_none_is_guessed(tmp_path):
    source = caption_folder(tmp_path, "x/v.jsonl", "y/v.jsonl")
    assert source.lacking(["v"]) == {"v": f"several files in {tmp_path}, x/v.jsonl, y/v.jsonl: keep one"}


def test_another_video_s_captions_are_not_a_translation(tmp_path):
    source = caption_folder(tmp_path, "dr.who.jsonl", "dr.words.jsonl")
    assert list(source.lacking(["dr", "dr.who"])) == ["dr"]
    assert [narration.video_id for narration in source(["dr", "dr.who"])] == ["dr.who"]
    assert list(source.lacking(["dr"])) == []


@pytest.mark.parametrize("name", ["v.VTT", "v.SRT", "v.Srt"])
def test_suffixes_may_be_in_capitals_and_lines_end_as_in_windows(tmp_path, name):
    times = "00:00:01.000 --> 00:00:02.000" if name.endswith("VTT") else "00:00:01,000 --> 00:00:02,000"
    head = ["WEBVTT", ""] if name.endswith("VTT") else ["1"]
    lines = [*head, times, "chop it", "", times.replace(":01", ":03").replace(":02", ":04"), "stir", ""]
    (tmp_path / name).write_bytes("\r\n".join(lines).encode("utf-8-sig"))
    assert narrations(tmp_path, ["v"]) == {"v": [Caption(1.0, 2.0, "chop it"), Caption(3.0, 4.0, "stir")]}


def test_a_mark_at_the_start_of_a_file_does_no_harm(tmp_path):
    line = json.dumps({"video_id": "v", "start": 1, "end": 2, "text": "chop"})
    (tmp_path / "lines.jsonl").write_text(f"\ufeff{line}\r\n", encoding="utf-8")
    columns = json.dumps({"v": {"start": [1], "end": [2], "text": ["chop"]}})
    (tmp_path / "raw_caption.json").write_text(f"\ufeff{columns}", encoding="utf-8")
    for name in ("lines.jsonl", "raw_caption.json"):
        assert narrations(tmp_path / name, ["v"]) == {"v": [Caption(1.0, 2.0, "chop")]}


def test_lines_of_one_file_are_grouped_by_video(tmp_path):
    path = tmp_path / "captions.jsonl"
    lines = [("a", 0), ("a", 1), ("b", 0)]
    path.write_text("".join(json.dumps({"video_id": v, "start": s, "end": s + 1, "text": v}) + "\n" for v, s in lines))
    assert narrations(path, ["a", "b", "c"]) == {
        "a": [Caption(0.0, 1.0, "a"), Caption(1.0, 2.0, "a")],
        "b": [Caption(0.0, 1.0, "b")],
    }
    path.write_text(path.read_text() + '{"video_id": "a", "start": 5, "end": 6, "text": "x"}\n')
    with pytest.raises(ValueError, match=r"captions\.jsonl:4: video 'a' again"):
        narrations(path, ["a"])
    path.write_text('{"start": 5}\n')
    with pytest.raises(ValueError, match=r"captions\.jsonl:1: a line needs video_id"):
        narrations(path, ["a"])


def test_what_is_no_source_is_named(tmp_path):
    with pytest.raises(ValueError, match="no captions at .*gone"):
        caption_source(tmp_path / "gone")
    (tmp_path / "x.csv").touch()
    with pytest.raises(ValueError, match=r"x\.csv: expected a folder, or a file \.json, \.pickle"):
        caption_source(tmp_path / "x.csv")


def test_captions_are_kept_within_their_video():
    spoken = [
        Caption(-1.0, 2.0, "early"),
        Caption(3.0, 3.0, "no time"),
        Caption(4.0, 12.0, "over the end"),
        Caption(10.0, 11.0, "after"),
        Caption(float("nan"), 1.0, "nowhere"),
    ]
    assert within(spoken, 10.0) == [Caption(0.0, 2.0, "early"), Caption(4.0, 10.0, "over the end")]


def test_the_original_s_shards_are_read_as_recorded():
    videos = list(read_mmpt_shards(GOLDEN, GOLDEN))
    texts = json.loads((GOLDEN / "sharded_text_expected.json").read_text())
    with np.load(GOLDEN / "sharded_video_expected.npz") as features:
        assert [video.video_id for video in videos] == ["a", "b", "c", "d"]
        for number, video in enumerate(videos):
            np.testing.assert_array_equal(video.features, features[str(number)])
            recorded = texts[str(number)]
            assert video.tokens == recorded["cap"]
            np.testing.assert_allclose(video.caption_times, np.stack([recorded["start"], recorded["end"]], axis=1))


def test_shards_that_do_not_fit_are_named(tmp_path):
    for path in GOLDEN.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    np.save(tmp_path / "train_0_starts.npy", np.array([0, 5, 99]))
    with pytest.raises(ValueError, match=r"train_0_starts\.npy does not fit .*train_0_data\.npy"):
        list(read_mmpt_shards(tmp_path, tmp_path))
    np.save(tmp_path / "train_0_starts.npy", np.array([0, 32]))
    with pytest.raises(ValueError, match=r"train_meta\.pkl: shard 0 has 4 videos, but features for 1"):
        list(read_mmpt_shards(tmp_path, tmp_path))
    with pytest.raises(ValueError, match=r"val_meta\.pkl can't be read"):
        list(read_mmpt_shards(tmp_path, tmp_path, split="val"))
    (tmp_path / "train_meta.pkl").write_bytes(pickle.dumps([1]))
    with pytest.raises(ValueError, match=r"train_meta\.pkl does not map"):
        list(read_mmpt_shards(tmp_path, tmp_path))
