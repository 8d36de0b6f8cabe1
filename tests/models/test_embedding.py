"""Raw videos and sentences in, vectors out: batches of any size, long videos, labels by prompts."""

import re
from types import SimpleNamespace

import numpy as np
import pytest
import torch

from mmpt_plugin import VideoCLIP
from mmpt_plugin.features.extract import encode
from mmpt_plugin.features.files import read_features
from mmpt_plugin.models import VideoCLIPConfig, VideoCLIPSegmenter, VideoCLIPSegmenterConfig
from mmpt_plugin.models.embedding import best_candidates, sliding_windows
from mmpt_plugin.registry import encoders
from mmpt_plugin.tokenizer import load_tokenizer
from tests.conftest import TINY_ENCODER, TINY_MODEL


@pytest.fixture(scope="module")
def model(kitchen):
    torch.manual_seed(0)
    made = VideoCLIP(VideoCLIPConfig(**TINY_MODEL, max_video_len=8)).eval()
    made.tokenizer = load_tokenizer(str(kitchen.root / "tokenizer"))
    return made


def rows(seconds, seed=0):
    return np.random.default_rng(seed).standard_normal((seconds, 512)).astype(np.float16)


def test_video_files_become_the_vectors_of_their_features(model, kitchen):
    paths = sorted((kitchen.root / "videos").glob("*.mp4"))[:3]
    vectors = model.embed_videos(paths, TINY_ENCODER)
    features = [read_features(kitchen.features / f"{path.stem}.npy") for path in paths]
    torch.testing.assert_close(vectors, model.embed_features(features))
    assert vectors.shape == (3, 16)
    built = encoders.build(TINY_ENCODER)
    torch.testing.assert_close(model.embed_videos(map(str, paths[:1]), built), vectors[:1], atol=1e-5, rtol=0)
    np.testing.assert_array_equal(encode(paths[0], built), features[0])


def test_a_short_video_is_one_clip_whatever_it_is_batched_with(model):
    videos = [rows(n, n) for n in (1, 8, 5)]
    alone = torch.cat([model.encode_video(torch.from_numpy(video)[None].float()) for video in videos])
    for batch_size in (1, 2, 64):
        together = model.embed_features(videos, batch_size=batch_size)
        torch.testing.assert_close(together, alone.detach(), atol=1e-5, rtol=0)


def test_a_long_video_is_the_mean_of_equal_windows(model):
    """20 s in windows of at most 8 s: 7, 7 and 6."""
    video = rows(20)
    windows = [model.embed_features([part]) for part in (video[:7], video[7:14], video[14:])]
    torch.testing.assert_close(model.embed_features([video]), torch.stack(windows).mean(dim=0), atol=1e-5, rtol=0)
    torch.testing.assert_close(model.embed_features([video], truncate=True), model.embed_features([video[:8]]))


def test_windows_slide_to_the_end():
    """10 rows, 4 at a time, 3 apart: the fourth window would begin at 9, but ends with the rows."""
    assert sliding_windows(10, window=4, hop=3) == [(0, 4), (3, 7), (6, 10)]
    assert sliding_windows(9, window=4, hop=3) == [(0, 4), (3, 7), (5, 9)]
    assert sliding_windows(4, window=4, hop=1) == [(0, 4)]
    assert sliding_windows(2, window=4, hop=2) == [(0, 2)]
    for hop in (0, 5):
        with pytest.raises(ValueError, match=rf"hop must be 1 to 4, the number of rows in a window, got {hop}"):
            sliding_windows(9, window=4, hop=hop)


def test_overlapping_windows_are_a_long_videos_candidates(model):
    """20 s in windows of 8, 5 apart: from 0, 5, 10 and 12."""
    videos = [rows(20), rows(3, 1)]
    candidates = model.embed_candidates(videos, hop=5, batch_size=3)
    assert [len(windows) for windows in candidates] == [4, 1]
    expected = model.embed_features([videos[0][start : start + 8] for start in (0, 5, 10, 12)])
    torch.testing.assert_close(candidates[0], expected, atol=1e-5, rtol=0)


def test_the_best_candidate_speaks_for_its_video():
    text = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    candidates = [torch.tensor([[0.1, 0.9], [0.5, 0.2]]), torch.tensor([[0.3, 0.4]])]
    scores, which = best_candidates(text, candidates)
    torch.testing.assert_close(scores, torch.tensor([[0.5, 0.3], [0.9, 0.4]]))
    assert which.tolist() == [[1, 0], [0, 0]]


def test_sentences_are_read_up_to_their_limit(model):
    short, long = "chop the tomato", "chop " * 61
    vectors = model.embed_text([short, long, long + "the tomato"], batch_size=2)
    torch.testing.assert_close(vectors[:1], model.encode_text([short]).detach(), atol=1e-5, rtol=0)
    torch.testing.assert_close(vectors[1], vectors[2])  # 61 word pieces are read
    assert not torch.allclose(vectors[1], model.embed_text(["chop " * 60])[0])


def test_labels_are_ranked_by_the_mean_of_their_prompts(model):
    prompts = {"chopping": ["chop the tomato", "chop it"], "stirring": ["stir the pot"]}
    videos = model.embed_text(["stir the pot"])  # a video that looks just like a sentence
    (ranked,) = model.classify(videos, prompts)
    expected = {
        "chopping": float(videos[0] @ model.embed_text(prompts["chopping"]).mean(dim=0)),
        "stirring": float(videos[0] @ videos[0]),
    }
    assert ranked == pytest.approx(expected, rel=1e-4)
    assert list(ranked) == sorted(expected, key=lambda label: -expected[label])


def test_one_string_is_one_sentence_and_one_path_one_video(model, kitchen):
    """A string is a sequence of letters to Python: it must not give one row per letter."""
    torch.testing.assert_close(model.embed_text("chop it"), model.embed_text(["chop it"]))
    torch.testing.assert_close(model.encode_text("chop it"), model.encode_text(["chop it"]))
    path = next((kitchen.root / "videos").glob("*.mp4"))
    for one in (str(path), path):
        torch.testing.assert_close(model.embed_videos(one, TINY_ENCODER), model.embed_videos([path], TINY_ENCODER))


def test_labels_may_be_their_own_prompts(model):
    videos = model.embed_text(["stir the pot"])
    labels = ["chop the tomato", "stir the pot"]
    assert model.classify(videos, labels) == model.classify(videos, {label: [label] for label in labels})
    assert model.classify(videos, {"a": "chop the tomato"}) == model.classify(videos, {"a": ["chop the tomato"]})


def test_an_encoder_of_another_width_is_refused_before_any_video_is_read(model):
    with pytest.raises(ValueError, match=r"encoder .*efficientnet.* width 1280, but the model expects .* 512"):
        model.embed_videos(["/nowhere/at/all.mp4"], "efficientnet_lite0")


def test_no_videos_and_no_sentences_are_no_vectors(model):
    assert model.embed_videos([], TINY_ENCODER).shape == (0, 16)
    assert model.embed_text([]).shape == (0, 16)


def test_what_can_not_be_embedded_is_named(model, tmp_path):
    with pytest.raises(ValueError, match="this model was saved without an encoder: pass the one"):
        model.embed_videos(["v.mp4"])
    with pytest.raises(ValueError, match=r"features of video 1 have shape \(3, 4\), the model expects \(T, 512\)"):
        model.embed_features([rows(3), np.zeros((3, 4), dtype=np.float16)])
    (tmp_path / "text.mp4").write_text("no video")
    with pytest.raises(ValueError, match=r"text\.mp4 can't be decoded"):
        model.embed_videos([tmp_path / "text.mp4"], TINY_ENCODER)
    with pytest.raises(ValueError, match="no encoder 's3'. Did you mean 's3d'"):
        model.embed_videos([], "s3")
    for prompts, message in (
        ({}, "prompts must be a list of labels"),
        ("cut", "got 'cut'"),
        ({"a": []}, "label 'a' needs"),
    ):
        with pytest.raises(ValueError, match=message):
            model.classify(torch.zeros(1, 16), prompts)


def test_a_tokenizer_of_another_model_is_refused(model, kitchen, tmp_path):
    small = VideoCLIP(VideoCLIPConfig(**TINY_MODEL | {"vocab_size": 30}))
    small.save_pretrained(tmp_path / "model")
    with pytest.raises(ValueError, match="317 word pieces, .* model.vocab_size is 30: the model was trained with"):
        VideoCLIP.from_pretrained(tmp_path / "model", tokenizer=kitchen.root / "tokenizer")


def test_a_saved_model_keeps_its_tokenizer(model, tmp_path):
    model.save_pretrained(tmp_path / "model")
    again = VideoCLIP.from_pretrained(tmp_path / "model")
    torch.testing.assert_close(again.embed_text(["chop the tomato"]), model.embed_text(["chop the tomato"]))


@pytest.mark.parametrize(
    ("holds", "message"),
    [
        ({"feature_dim": 7}, "split 'train' has features of width 7, but the model expects features of width 512"),
        ({"vocab_size": 30522}, "split 'train' has 30522 word pieces, but model.vocab_size is 317"),
        ({"max_text_len": 62}, "split 'train' has max_text_len 62, but model.max_text_len is 61: lower task.dataset"),
        ({"num_labels": 9}, "split 'train' has num_labels 9, but model.num_labels is 8: raise the model's"),
    ],
)
def test_training_data_that_does_not_fit_is_refused_before_training(holds, message):
    """Too narrow a classifier, too small a vocabulary; a wider one of either is all right."""
    model = VideoCLIPSegmenter(VideoCLIPSegmenterConfig(**TINY_MODEL, num_labels=8))
    fits = {"feature_dim": 512, "vocab_size": 317, "max_text_len": 61, "num_labels": 8}
    model.check_dataset(SimpleNamespace(**fits), where="split 'train'")
    model.check_dataset(SimpleNamespace(feature_dim=512, num_labels=3), where="split 'train'")
    with pytest.raises(ValueError, match=re.escape(message)):
        model.check_dataset(SimpleNamespace(**fits | holds), where="split 'train'")
