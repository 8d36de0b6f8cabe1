"""Features and captions -> shards: what is complete goes in, what is not is named or counted."""

import json
from pathlib import Path

import numpy as np
import pytest

from mmpt_plugin.batch import Cluster
from mmpt_plugin.cli import main
from mmpt_plugin.datasets import OverlappedClips, OverlappedClipsConfig
from mmpt_plugin.features.files import read_features, write_features
from mmpt_plugin.shards.format import Shards
from mmpt_plugin.shards.make import CaptionLimits, convert_mmpt_shards, make_shards
from mmpt_plugin.tokenizer import load_tokenizer, tokenize
from mmpt_plugin.video.cache_frames import cache_frames
from mmpt_plugin.video.frame_cache import FrameSettings
from mmpt_plugin.video.sparse_frames import FramesConfig
from mmpt_plugin.video.write import write_video

GOLDEN = Path(__file__).parents[1] / "golden" / "mmpt_shards"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "chop", "the", "tomato"]


@pytest.fixture
def folders(tmp_path):
    """Two videos of six seconds, one caption each."""
    for folder in ("features", "captions", "tokenizer"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_text("".join(f"{word}\n" for word in WORDS))
    for video in ("a", "b"):
        write_features(tmp_path / "features" / f"{video}.npy", np.ones((6, 4), dtype=np.float16))
        (tmp_path / "captions" / f"{video}.jsonl").write_text('{"start": 1, "end": 3, "text": "chop the tomato"}\n')
    return {
        "features": tmp_path / "features",
        "captions": tmp_path / "captions",
        "tokenizer": str(tmp_path / "tokenizer"),
        "out": tmp_path / "shards",
    }


def test_the_kitchen_went_in_whole(kitchen):
    shards = Shards(kitchen.shards)
    assert shards.video_ids == (kitchen.root / "train.txt").read_text().split()
    features = read_features(kitchen.features / f"{shards.video_ids[3]}.npy")
    np.testing.assert_array_equal(shards[3].features, features)
    assert all(record.tokens.min() > 4 for record in shards)  # no [UNK], no special token
    about = json.loads((kitchen.features / f"{shards.video_ids[0]}.json").read_text())
    assert shards.encoder == about["encoder"]


def test_what_went_in_is_counted_and_comes_out(folders):
    (folders["captions"] / "b.jsonl").unlink()
    (folders["captions"] / "b.vtt").write_text(
        "WEBVTT\n\n00:00.000 --> 00:01.500\nchop chop\n\n00:02.000 --> 00:03.000\nthe tomato the tomato\n"
    )
    report = make_shards(["b", "a"], **folders, limits=CaptionLimits(max_tokens=3))
    assert (report.videos, report.seconds, report.captions, report.captions_cut) == (2, 12, 3, 1)
    assert report.missing == {}
    shards = Shards(folders["out"])
    assert (shards.video_ids, shards.encoder, shards.pad_id) == (["b", "a"], "unknown", 0)
    assert shards[0].caption_times.tolist() == [[0.0, 1.5], [2.0, 3.0]]
    assert shards[0].token_counts.tolist() == [2, 3]
    assert shards[0].tokens.tolist() == [5, 5, 6, 7, 6]


@pytest.mark.parametrize("cached", [False, True])
def test_to_train_from_frames_no_features_are_needed(folders, tmp_path, cached):
    """Videos of 5.5 and 6 s: six rows of width 0 each, so that clips are drawn of as many seconds."""
    (tmp_path / "videos").mkdir()
    for name, frames in (("a", 11), ("b", 12)):
        write_video(tmp_path / "videos" / f"{name}.mp4", [np.full((32, 32, 3), 90, dtype=np.uint8)] * frames, fps=2)
    videos = tmp_path / "videos"
    if cached:
        videos = tmp_path / "cache"
        cache_frames([tmp_path / "videos"], videos, settings=FrameSettings(size=16))
    report = make_shards(None, **folders | {"features": videos})
    assert (report.videos, report.seconds) == (2, 12)
    shards = Shards(folders["out"])
    assert (shards.video_ids, shards.feature_dim) == (["a", "b"], 0)
    assert [record.features.shape for record in shards] == [(6, 0), (6, 0)]
    settings = {"splits": {"train": str(folders["out"])}, "videos": str(videos), "pairs_per_video": 2}
    data = OverlappedClips(OverlappedClipsConfig(**settings, frames=FramesConfig(num_frames=2, size=16)))
    assert data[Cluster(1, 1, 0, (1,))].video.shape == (2, 2, 16, 16, 3)
    with pytest.raises(ValueError, match=r"contain no features: set dataset\.frames to read videos"):
        OverlappedClips(OverlappedClipsConfig(**settings))


def test_incomplete_videos_are_an_error_or_counted(folders):
    (folders["captions"] / "b.jsonl").unlink()
    missing = r"2 of 3 videos are incomplete, such as 'b': no b with .vtt or .srt or .jsonl in .*; 'c': no .*c.npy"
    with pytest.raises(ValueError, match=missing):
        make_shards(["a", "b", "c"], **folders)
    assert not folders["out"].exists()
    report = make_shards(["a", "b", "c"], **folders, allow_missing=True)
    assert (report.videos, report.captions, sorted(report.missing)) == (1, 1, ["b", "c"])
    assert "skipped c: no " in str(report)
    assert Shards(folders["out"]).video_ids == ["a"]


@pytest.mark.parametrize(
    ("caption", "message"),
    [
        ({"start": 1, "end": 30, "text": "chop"}, r"b.jsonl, caption 1 \(1 to 30 s\): the video has only 6 s"),
        ({"start": 1, "text": "chop"}, r"b.jsonl:1: 'end' is missing, there is only start, text"),
        ({"start": 1, "end": 2, "text": " "}, r"b.jsonl contain no words"),
    ],
)
def test_captions_that_cannot_be_used_are_an_error_or_counted(folders, caption, message):
    (folders["captions"] / "b.jsonl").write_text(json.dumps(caption))
    with pytest.raises(ValueError, match=message):
        make_shards(["a", "b"], **folders)
    assert not folders["out"].exists()
    report = make_shards(["a", "b"], **folders, allow_missing=True)
    assert (report.videos, list(report.missing)) == (1, ["b"])


@pytest.mark.parametrize("order", [["a", "b"], ["b", "a"]])
@pytest.mark.parametrize(
    ("rows", "message"),
    [
        (None, " can't be read"),
        (np.ones((0, 4), dtype=np.float16), " are empty: 0 rows of 4"),
        (np.full((6, 4), np.nan, dtype=np.float16), " contain NaN or infinity"),
        (np.full((6, 4), 1e6, dtype=np.float32), r" contain NaN or infinity \(as float16\)"),
    ],
)
def test_features_that_cannot_be_used_are_an_error_or_counted(folders, order, rows, message):
    """One bad video does not stop the others, not even if it is the first."""
    if rows is None:
        (folders["features"] / "b.npy").write_bytes(b"\x93NUMPY")
    else:
        write_features(folders["features"] / "b.npy", rows)
    with pytest.raises(ValueError, match=rf"b.npy{message}"):
        make_shards(order, **folders)
    assert not folders["out"].exists()
    report = make_shards(order, **folders, allow_missing=True)
    assert (report.videos, list(report.missing)) == (1, ["b"])
    assert Shards(folders["out"]).video_ids == ["a"]


def test_where_no_video_can_be_used_the_reason_is_named(folders):
    write_features(folders["features"] / "b.npy", np.ones((0, 4), dtype=np.float16))
    with pytest.raises(ValueError, match=r"none of 1 videos can be used, such as 'b': features .*b.npy are empty"):
        make_shards(["b"], **folders, allow_missing=True)


def test_ids_may_hold_slashes(folders):
    """Features in `x/b.npy` are of video x/b, and its captions are in `x/b.jsonl`."""
    for folder, suffix in (("features", "npy"), ("captions", "jsonl")):
        (folders[folder] / "x").mkdir()
        (folders[folder] / f"b.{suffix}").rename(folders[folder] / "x" / f"b.{suffix}")
    make_shards(None, **folders)
    assert Shards(folders["out"]).video_ids == ["a", "x/b"]


def test_a_video_that_is_listed_twice_goes_in_once(folders):
    assert make_shards(["a", "b", "a"], **folders).videos == 2
    with pytest.raises(ValueError, match="1 of 3 videos are incomplete"):
        make_shards(["a", "b", "c", "c", "a"], **folders)


def test_a_failure_half_way_keeps_the_shards_there_were(folders):
    make_shards(["a"], **folders)
    write_features(folders["features"] / "b.npy", np.ones((6, 5), dtype=np.float16))
    with pytest.raises(ValueError, match=r"have width 5, .* have width 4"):
        make_shards(["a", "b"], **folders, videos_per_shard=1)
    assert Shards(folders["out"]).video_ids == ["a"]
    assert not [path for path in folders["out"].parent.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_a_list_of_videos_is_one_id_a_line(folders, capsys, end):
    """As Windows writes it, with blank lines, ids that repeat and an id with a blank inside."""
    for folder, suffix in (("features", "npy"), ("captions", "jsonl")):
        (folders[folder] / f"b.{suffix}").rename(folders[folder] / f"my b.{suffix}")
    (folders["out"].parent / "list.txt").write_bytes(("\ufeffa\n\nmy b\na\n".replace("\n", end)).encode())
    options = [f"--{name}={value}" for name, value in folders.items()]
    assert main(["shard", f"--videos={folders['out'].parent / 'list.txt'}", *options]) == 0
    assert "2 videos, 12 s" in capsys.readouterr().out
    assert Shards(folders["out"]).video_ids == ["a", "my b"]


def test_features_of_two_widths_are_named(folders):
    write_features(folders["features"] / "b.npy", np.ones((6, 5), dtype=np.float16))
    with pytest.raises(ValueError, match=r"features .*b.npy have width 5, .*a.npy have width 4"):
        make_shards(["a", "b"], **folders, allow_missing=True)


def test_features_of_two_encoders_are_named(folders):
    (folders["features"] / "b.json").write_text(json.dumps({"encoder": "another"}))
    with pytest.raises(ValueError, match=r"b.npy and .*a.npy are from different encoders"):
        make_shards(["a", "b"], **folders, allow_missing=True)
    (folders["features"] / "b.json").write_text(json.dumps({"encoder": "unknown", "max_seconds": 6}))
    with pytest.raises(ValueError, match=r"b.npy and .*a.npy are from different encoders"):
        make_shards(["a", "b"], **folders, allow_missing=True)
    (folders["features"] / "b.json").write_text("{}")
    with pytest.raises(ValueError, match=r"b.json is damaged: KeyError"):
        make_shards(["a", "b"], **folders)
    assert "b.json is damaged" in make_shards(["a", "b"], **folders, allow_missing=True).missing["b"]


def test_nothing_to_write_is_refused(folders):
    with pytest.raises(ValueError, match="the list of videos is empty"):
        make_shards([], **folders)
    with pytest.raises(ValueError, match=r"1 of 1 videos are incomplete, such as 'c': no "):
        make_shards(["c"], **folders, allow_missing=True)


def howto100m(path, **texts):
    columns = {
        video: {"start": [s for s, *_ in rows], "end": [e for _, e, _ in rows], "text": [t for *_, t in rows]}
        for video, rows in texts.items()
    }
    path.write_text(json.dumps(columns))
    return path


def test_howto100m_s_captions_are_put_in_order_and_counted(folders, tmp_path):
    """Of four captions one repeats the one before, and one starts after the video's six seconds."""
    folders["captions"] = howto100m(
        tmp_path / "raw_caption.json",
        b=[(0, 2, "chop the"), (1, 3, "the"), (8, 9, "chop"), (4, 9, "tomato")],
        a=[(0, 1, "chop")],
        other=[(0, 1, "chop")],
    )
    report = make_shards(None, **folders)
    assert (report.videos, report.captions, report.captions_repeated, report.captions_outside) == (2, 3, 1, 1)
    shards = Shards(folders["out"])
    assert shards.video_ids == ["b", "a"]
    assert shards[0].caption_times.tolist() == [[0.0, 3.0], [4.0, 6.0]]
    assert shards[0].tokens.tolist() == [5, 6, 7]


@pytest.mark.parametrize(("unit", "num_tokens"), [("character", 5), ("word", 4)])
def test_only_by_character_the_file_s_order_decides_what_repeats(folders, tmp_path, unit, num_tokens):
    """In the file "oil" separates "chop the" from "the tomato", and no caption ends with a letter that begins the
    next: as in the original nothing goes. In the order of starts "the" comes twice. Both ways the shard is in order.
    """
    rows = [(0, 2, "chop the"), (4, 5, "oil"), (2, 4, "the tomato")]
    folders["captions"] = howto100m(tmp_path / "raw_caption.json", a=rows)
    make_shards(["a"], **folders, limits=CaptionLimits(unit=unit))
    (video,) = Shards(folders["out"])
    assert video.caption_times[:, 0].tolist() == [0, 2, 4]
    assert len(video.tokens) == num_tokens
    if unit == "character":
        assert video.tokens.tolist() == [5, 6, 6, 7, 1]


def test_repetitions_stay_where_nobody_asks(folders, tmp_path):
    folders["captions"] = howto100m(tmp_path / "raw_caption.json", a=[(0, 2, "chop the"), (1, 3, "the")])
    report = make_shards(["a"], **folders, limits=CaptionLimits(unit=None))
    assert (report.captions, report.captions_repeated) == (2, 0)


def test_rolling_captions_go_in_once_and_are_counted(folders):
    """Unless repetitions are asked for."""
    (folders["captions"] / "a.jsonl").unlink()
    (folders["captions"] / "a.vtt").write_text(
        "WEBVTT\n\n00:00.000 --> 00:01.990\n \nchop<00:00:01.000><c> chop</c>\n\n"
        "00:01.990 --> 00:02.000\nchop chop\n \n\n00:02.000 --> 00:04.000\nchop chop\nthe<00:00:03.000><c> tomato</c>\n"
    )
    report = make_shards(["a"], **folders)
    assert (report.captions, report.captions_repeated) == (2, 2)
    assert "(2 repeated the previous one, 0 outside the video removed)" in str(report)
    (video,) = Shards(folders["out"])
    assert (video.tokens.tolist(), video.token_counts.tolist()) == ([5, 5, 6, 7], [2, 2])
    report = make_shards(["a"], **folders, limits=CaptionLimits(unit=None))
    assert (report.captions, report.captions_repeated) == (3, 0)


def test_videos_that_the_captions_lack_are_an_error_or_counted(folders, tmp_path):
    folders["captions"] = howto100m(tmp_path / "raw_caption.json", a=[(0, 2, "chop")])
    with pytest.raises(ValueError, match=r"1 of 2 videos have no captions in .*raw_caption\.json: b"):
        make_shards(["a", "b"], **folders)
    assert not folders["out"].exists()
    report = make_shards(["a", "b"], **folders, allow_missing=True)
    assert list(report.missing) == ["b"]


def test_the_original_s_shards_become_ours(tmp_path):
    """Word pieces as recorded; the captions of b, c and d that start after their video are counted."""
    (tmp_path / "tokenizer").mkdir()
    (tmp_path / "tokenizer" / "vocab.txt").write_bytes((GOLDEN / "vocab.txt").read_bytes())
    report = convert_mmpt_shards(
        GOLDEN, GOLDEN, split="train", tokenizer=str(tmp_path / "tokenizer"), out=tmp_path / "out"
    )
    shards = Shards(tmp_path / "out")
    recorded = json.loads((GOLDEN / "sharded_text_expected.json").read_text())
    assert shards.video_ids == ["a", "b", "c", "d"]
    assert shards[0].tokens.tolist() == [token for caption in recorded["0"]["cap"] for token in caption]
    assert (report.videos, report.captions + report.captions_outside) == (4, 9)
    assert (shards.cls_id, shards.sep_id, shards.pad_id) == (2, 3, 0)


@pytest.mark.parametrize("option", [["--videos", "list.txt"], ["--max-characters", "96"], ["--allow-missing"]])
def test_what_the_original_s_shards_cannot_obey_is_refused(tmp_path, capsys, option):
    words = ["--features", str(GOLDEN), "--captions", str(GOLDEN), "--tokenizer", str(GOLDEN)]
    assert main(["shard", *words, "--out", str(tmp_path / "out"), *option]) == 2
    assert "the original toolkit's shards, which are converted as a whole: remove --videos" in capsys.readouterr().err


def test_word_pieces_equal_the_recordings(tmp_path):
    """96 characters, then 32 word pieces, as the original cut its captions."""
    (tmp_path / "vocab.txt").write_bytes((GOLDEN / "vocab.txt").read_bytes())
    spoken = json.loads((GOLDEN / "pretok_input.json").read_text())
    recorded = json.loads((GOLDEN / "pretok_ids.json").read_text())
    for video, columns in spoken.items():
        ids, _ = tokenize(columns["text"], load_tokenizer(str(tmp_path)), max_characters=96)
        assert ids == [row[:32] for row in recorded[video]["cap"]]


def test_shards_of_another_tokenizer_are_refused(tmp_path, folders):
    with pytest.raises(
        ValueError, match=r"video 'a': token id 56 is out of range, .* has 8 tokens: .* another tokenizer"
    ):
        convert_mmpt_shards(GOLDEN, GOLDEN, split="train", tokenizer=folders["tokenizer"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()
