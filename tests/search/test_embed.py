"""`mmpt convert` and `mmpt embed`: from the released checkpoint's layout and video files to files of vectors."""

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open

from mmpt_plugin import VideoCLIP
from mmpt_plugin.cli import main
from mmpt_plugin.features.files import read_features
from mmpt_plugin.registry import models
from tests.conftest import TINY_MODEL
from tests.models.clip_family import TINY

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
    """With a converted folder that holds its tokenizer."""
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
        ([], "expected either videos or --text FILE"),
        (["v.mp4", "--text", "q.txt"], "expected either videos or --text FILE"),
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


def test_an_encoder_that_does_not_fit_is_refused_by_convert_at_once(checkpoint, tmp_path, capsys):
    """Not after hours of extraction: a name, a file and a width that are wrong."""
    for encoder, message in (
        ("s3", "no encoder 's3'. Did you mean 's3d'"),
        ("{_name: s3d, weights: gone.pth}", "no checkpoint at gone.pth"),
        ("efficientnet_lite0", "features of width 1280, but the model expects features of width 512"),
    ):
        assert mmpt("convert", checkpoint, "--out", tmp_path / "m", "--encoder", encoder) == 2
        assert message in capsys.readouterr().err
    assert not (tmp_path / "m").exists()


def test_a_converted_folder_finds_its_encoders_weights_from_anywhere(checkpoint, tmp_path, capsys, monkeypatch):
    from mmpt_plugin.features.s3d import S3D

    torch.manual_seed(0)
    torch.save(S3D().state_dict(), tmp_path / "s3d.pth")
    monkeypatch.chdir(tmp_path)
    encoder = "{_name: s3d, size: 32, fps: 4, weights: s3d.pth}"
    assert mmpt("convert", checkpoint, "--out", "m", "--encoder", encoder) == 0
    assert f"weights {tmp_path}/s3d.pth" in capsys.readouterr().out
    monkeypatch.chdir("/")
    assert VideoCLIP.from_pretrained(tmp_path / "m").encoder["weights"] == str(tmp_path / "s3d.pth")


def test_a_wrong_width_is_found_before_any_video_is_read(checkpoint, kitchen, tmp_path, capsys):
    words = [
        "embed",
        checkpoint,
        kitchen.root / "videos",
        "--encoder",
        "efficientnet_lite0",
        "--out",
        tmp_path / "v.st",
    ]
    assert mmpt(*words) == 2
    assert "the model expects features of width 512" in capsys.readouterr().err
    assert not list(tmp_path.glob("v_features/*"))


def test_truncated_vectors_are_of_truncated_features(checkpoint, kitchen, tmp_path):
    """Only the seconds that are used are extracted; afterwards the whole videos are, and their vectors are others."""
    videos = sorted((kitchen.root / "videos").glob("*.mp4"))[:2]
    words = ["embed", checkpoint, *videos, "--encoder", ENCODER, "--max-video-len", 3]
    assert mmpt(*words, "--out", tmp_path / "v.st", "--truncate") == 0
    short, _ = read(tmp_path / "v.st", "videos")
    assert [len(read_features(path)) for path in sorted((tmp_path / "v_features").glob("*.npy"))] == [3, 3]
    model = VideoCLIP.from_pretrained(checkpoint, max_video_len=3)
    whole = [read_features(kitchen.features / f"{path.stem}.npy") for path in videos]
    torch.testing.assert_close(short, model.embed_features(whole, truncate=True), atol=1e-5, rtol=1e-4)
    assert mmpt(*words, "--out", tmp_path / "v.st") == 0
    torch.testing.assert_close(read(tmp_path / "v.st", "videos")[0], model.embed_features(whole), atol=1e-5, rtol=1e-4)


def test_videos_of_one_name_in_two_folders_have_a_vector_each(checkpoint, kitchen, tmp_path):
    one, other = sorted((kitchen.root / "videos").glob("*.mp4"))[:2]
    for path, folder in ((one, "a"), (other, "b")):
        (tmp_path / "videos" / folder).mkdir(parents=True)
        (tmp_path / "videos" / folder / "clip.mp4").write_bytes(path.read_bytes())
    words = ["embed", checkpoint, "--encoder", ENCODER, "--out", tmp_path / "v.st"]
    assert mmpt(*words, tmp_path / "videos") == 0
    vectors, names = read(tmp_path / "v.st", "videos")
    assert [Path(name).parent.name for name in names] == ["a", "b"]
    assert not torch.allclose(vectors[0], vectors[1])


def test_a_model_of_frames_embeds_video_files_by_itself(kitchen, tmp_path, capsys):
    torch.manual_seed(0)
    model = models["clip_mean"].build(TINY).eval()
    model.save_pretrained(tmp_path / "m")
    (tmp_path / "bad.mp4").write_text("no video")
    good = sorted((kitchen.root / "videos").glob("*.mp4"))[:3]
    words = ["embed", tmp_path / "m", *good[:1], tmp_path / "bad.mp4", *good[1:], "--out", tmp_path / "v.st"]
    assert mmpt(*words) == 2
    assert "1 of 4 videos failed" in capsys.readouterr().out
    vectors, names = read(tmp_path / "v.st", "videos")
    assert names == list(map(str, good))
    torch.testing.assert_close(vectors, model.embed_videos(good), atol=1e-5, rtol=1e-4)
    assert mmpt(*words, "--truncate") == 2
    assert "truncate needs a model that reads features" in capsys.readouterr().err
