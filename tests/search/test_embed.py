"""`mmpt convert` and `mmpt embed`: from the released checkpoint's layout and video files to files of vectors."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mmpt_plugin import VideoCLIP
from mmpt_plugin.cli import main
from tests.conftest import TINY_MODEL

RELEASED = Path(__file__).parents[1] / "golden" / "videoclip_released_layout.pt"
ENCODER = "{_name: s3d, size: 32, fps: 4}"


def mmpt(*words):
    return main([str(word) for word in words])


def read(path, kind):
    with safe_open(path, framework="pt") as file:
        return file.get_tensor("vectors"), json.loads(file.metadata()[kind])


@pytest.fixture
def checkpoint(tmp_path, kitchen):
    """A fairseq checkpoint of ours, as far as loading it goes."""
    from mmpt_plugin.models import VideoCLIPConfig

    torch.manual_seed(0)
    model = VideoCLIP(VideoCLIPConfig(**TINY_MODEL))
    weights = {f"model.{key}": value for key, value in model.state_dict().items()}
    torch.save({"cfg": {"model": {"_name": "videoclip", **TINY_MODEL}}, "model": weights}, tmp_path / "last.pt")
    return tmp_path / "last.pt"


def test_the_released_checkpoint_becomes_a_folder_with_the_same_outputs(tmp_path, capsys):
    shape = ["--num-attention-heads", 2, "--max-video-len", 8]
    assert mmpt("convert", RELEASED, "--out", tmp_path / "model", *shape) == 0
    assert "without a tokenizer" in capsys.readouterr().out
    assert {path.name for path in (tmp_path / "model").iterdir()} == {"config.json", "model.safetensors"}
    folder = VideoCLIP.from_pretrained(tmp_path / "model")
    file = VideoCLIP.from_pretrained(RELEASED, num_attention_heads=2, max_video_len=8)
    features = torch.randn(2, 5, 512)
    torch.testing.assert_close(folder.encode_video(features), file.encode_video(features), atol=0, rtol=0)


def test_videos_and_sentences_become_files_of_vectors(tmp_path, kitchen, checkpoint, capsys):
    """By way of a converted folder that holds its tokenizer."""
    words = ["--tokenizer", kitchen.root / "tokenizer", "--encoder", ENCODER]
    assert mmpt("convert", checkpoint, "--out", tmp_path / "m", *words) == 0
    assert "with its tokenizer" in capsys.readouterr().out
    videos = sorted((kitchen.root / "videos").glob("*.mp4"))[:2]
    out = tmp_path / "library" / "videos.safetensors"
    assert mmpt("embed", tmp_path / "m", *videos, "--out", out) == 0
    vectors, names = read(out, "videos")
    assert names == [str(path) for path in videos]
    model = VideoCLIP.from_pretrained(tmp_path / "m")
    torch.testing.assert_close(vectors, model.embed_videos(videos))

    (tmp_path / "queries.txt").write_text("chop the tomato\n\nstir the pot\n")
    text_out = tmp_path / "library" / "text.safetensors"
    assert mmpt("embed", tmp_path / "m", "--text", tmp_path / "queries.txt", "--out", text_out) == 0
    vectors, lines = read(text_out, "text")
    assert lines == ["chop the tomato", "stir the pot"]
    torch.testing.assert_close(vectors, model.embed_text(lines))


def test_videos_that_fail_are_named_and_the_others_have_their_vectors(tmp_path, kitchen, checkpoint, capsys):
    (tmp_path / "videos").mkdir()
    good = tmp_path / "videos" / "good.mp4"
    good.write_bytes((kitchen.root / "videos" / "toy_0000.mp4").read_bytes())
    (tmp_path / "videos" / "bad.mp4").write_text("no video")
    words = ["embed", checkpoint, tmp_path / "videos", "--encoder", ENCODER, "--out", tmp_path / "v.safetensors"]
    assert mmpt(*words) == 2
    assert "1 of 2 videos failed" in capsys.readouterr().out
    vectors, names = read(tmp_path / "v.safetensors", "videos")
    assert (len(vectors), names) == (1, [str(good)])
    assert mmpt(*words, "--allow-missing") == 0


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["v.mp4"], "videos need --encoder"),
        ([], "give either videos or --text FILE"),
        (["v.mp4", "--text", "q.txt"], "give either videos or --text FILE"),
    ],
)
def test_what_to_embed_must_be_said(checkpoint, tmp_path, capsys, words, message):
    assert mmpt("embed", checkpoint, *words, "--out", tmp_path / "v.safetensors") == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "v.safetensors").exists()


def test_sentences_in_another_encoding_are_refused(checkpoint, kitchen, tmp_path, capsys):
    (tmp_path / "q.txt").write_bytes("Sülze".encode("latin-1"))
    words = [
        "--text",
        tmp_path / "q.txt",
        "--tokenizer",
        kitchen.root / "tokenizer",
        "--out",
        tmp_path / "v.safetensors",
    ]
    assert mmpt("embed", checkpoint, *words) == 2
    assert "q.txt is not in UTF-8" in capsys.readouterr().err
