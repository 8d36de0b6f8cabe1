"""VideoCLIP against recordings of the original's outputs, and against what its files may and may not hold."""

from pathlib import Path

import pytest
import torch
from transformers import BertConfig, BertModel

from mmpt_plugin import VideoCLIP
from mmpt_plugin.criterions import NCE, NCEConfig
from mmpt_plugin.models import VideoCLIPConfig

GOLDEN = Path(__file__).parents[1] / "golden"
CASES = torch.load(GOLDEN / "videoclip_cases.pt", weights_only=True)
TINY = {
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_video_layers": 1,
    "num_text_layers": 2,
    "vocab_size": 30,
    "feature_dim": 4,
    "max_video_len": 6,
}


@pytest.fixture(scope="module")
def released() -> VideoCLIP:
    return VideoCLIP.from_pretrained(GOLDEN / "videoclip_released_layout.pt", num_attention_heads=2, max_video_len=8)


@pytest.fixture
def tiny() -> VideoCLIP:
    torch.manual_seed(0)
    return VideoCLIP(VideoCLIPConfig(**TINY)).eval()


def text_of(case):
    """The original writes `[CLS] [SEP] words [SEP]`; the first [SEP] belongs to its video half."""
    keep = [i for i in range(case["caps"].shape[1]) if i != 1]
    return case["caps"][:, keep], case["cmasks"][:, keep].bool()


@pytest.mark.parametrize("name", ["full", "mixed", "edge", "short_T", "bsz1"])
def test_outputs_equal_the_recordings(released, name):
    case = CASES[name]
    with torch.no_grad():
        video = released.encode_video(case["vfeats"], case["vmasks"].bool())
        text = released.encode_text(*text_of(case))
        steps = released.encode_video_steps(case["vfeats"], case["vmasks"].bool())
    torch.testing.assert_close(video, case["pooled_video_f32"], atol=1e-5, rtol=0)
    torch.testing.assert_close(text, case["pooled_text_f32"], atol=1e-5, rtol=0)
    torch.testing.assert_close(steps, case["video_hidden_f32"][:, 1:-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(text @ video.T, case["scores_t2v_f32"], atol=1e-4, rtol=1e-5)


def test_gradients_equal_the_recordings(released):
    case, recorded = CASES["mixed"], CASES["grad_mixed"]
    video = released.encode_video(case["vfeats"], case["vmasks"].bool())
    loss = NCE(NCEConfig())(video, released.encode_text(*text_of(case)))
    loss.backward()
    assert loss.item() == pytest.approx(recorded["loss"].item(), abs=1e-5)
    parameters = dict(released.named_parameters())
    for name in recorded.keys() - {"loss"}:
        gradient = parameters[name.removeprefix("grad.")].grad
        torch.testing.assert_close(gradient, recorded[name].float(), atol=1e-5, rtol=1e-4)


def test_a_clip_has_one_embedding_whatever_it_is_batched_with(released):
    case = CASES["mixed"]
    with torch.no_grad():
        together = released.encode_video(case["vfeats"], case["vmasks"].bool())
        lengths = case["vmasks"].sum(1).tolist()
        alone = [
            released.encode_video(case["vfeats"][i : i + 1, :n], case["vmasks"][i : i + 1, :n].bool())
            for i, n in enumerate(lengths)
        ]
    torch.testing.assert_close(torch.cat(alone), together, atol=1e-5, rtol=0)


def test_what_padding_holds_changes_nothing(tiny):
    mask = torch.tensor([[True, True, False, False]])
    features = torch.randn(1, 4, 4)
    spoilt = features.clone()
    spoilt[:, 2:] = 100.0
    torch.testing.assert_close(tiny.encode_video(features, mask), tiny.encode_video(spoilt, mask))


def test_the_towers_share_nothing(tiny):
    video = {id(p) for p in tiny.video_encoder.parameters()}
    assert video.isdisjoint(id(p) for p in tiny.text_encoder.parameters())


def test_a_clip_longer_than_the_model_is_refused(tiny):
    with pytest.raises(ValueError, match="7 s is longer than the model's max_video_len 6"):
        tiny.encode_video(torch.zeros(1, 7, 4))


def test_save_pretrained_comes_back_equal(tiny, tmp_path):
    tiny.save_pretrained(tmp_path / "model")
    again = VideoCLIP.from_pretrained(tmp_path / "model")
    assert again.config == tiny.config
    features = torch.randn(2, 5, 4)
    torch.testing.assert_close(again.encode_video(features), tiny.encode_video(features), atol=0, rtol=0)


def test_wrong_keys_are_named(tiny, tmp_path):
    weights = tiny.state_dict()
    weights["video_encoder.extra"] = torch.zeros(1)
    del weights["video_encoder.videomlp.linear2.bias"]
    weights["text_encoder.embeddings.LayerNorm.bias"] = torch.zeros(3)
    torch.save(weights, tmp_path / "bad.pt")
    with pytest.raises(ValueError) as caught:
        VideoCLIP.from_pretrained(tmp_path / "bad.pt", num_attention_heads=2)
    for word in (
        "missing video_encoder.videomlp.linear2.bias",
        "unexpected video_encoder.extra",
        "text_encoder.embeddings.LayerNorm.bias is (3,) instead of (16,)",
    ):
        assert word in str(caught.value)


def test_a_hostile_pickle_is_refused_and_not_run(tmp_path):
    target = tmp_path / "written"

    class Hostile:
        def __reduce__(self):
            return (Path.write_text, (target, "x"))

    torch.save({"model": Hostile()}, tmp_path / "hostile.pt")
    with pytest.raises(ValueError, match="holds more than weights"):
        VideoCLIP.from_pretrained(tmp_path / "hostile.pt")
    assert not target.exists()


def test_both_towers_start_from_the_named_bert(tmp_path):
    torch.manual_seed(1)
    config = BertConfig(vocab_size=30, hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    bert = BertModel(config)
    bert.save_pretrained(tmp_path / "bert")
    model = VideoCLIP(VideoCLIPConfig(**TINY, bert=str(tmp_path / "bert")))
    expected = bert.encoder.layer[0].attention.self.query.weight
    for tower in (model.text_encoder, model.video_encoder.bert):
        torch.testing.assert_close(tower.encoder.layer[0].attention.self.query.weight, expected)
    torch.testing.assert_close(
        model.text_encoder.encoder.layer[1].output.dense.weight, bert.encoder.layer[1].output.dense.weight
    )


def test_a_bert_of_another_size_is_named(tmp_path):
    BertModel(
        BertConfig(vocab_size=30, hidden_size=8, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32)
    ).save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="model.hidden_size is 16, but .* has 8"):
        VideoCLIP(VideoCLIPConfig(**TINY, bert=str(tmp_path / "bert")))
