"""VideoCLIP against recordings of the original's outputs, and against what its files may and may not hold."""

import json
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from mmpt_plugin import VideoCLIP
from mmpt_plugin.criterions import NCE, NCEConfig
from mmpt_plugin.models import VideoCLIPConfig
from tests.conftest import TINY_MODEL

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


def test_a_hidden_cls_gives_the_recorded_outputs(released):
    """As the original's COIN and CrossTask have it: mask 0 on [CLS] for both halves of the sequence."""
    case = CASES["cls_masked"]
    with torch.no_grad():
        clip, tower = (case["vfeats"], case["vmasks"].bool()), released.video_encoder
        video = tower.pool(tower(*clip, attend_to_cls=False), clip[1])
        steps = released.encode_video_steps(*clip, attend_to_cls=False)
        text = released.encode_text(*text_of(case))
        seen = released.encode_video(case["vfeats"], case["vmasks"].bool())
    torch.testing.assert_close(video, case["pooled_video_f32"], atol=1e-5, rtol=0)
    torch.testing.assert_close(steps, case["video_hidden_f32"][:, 1:-1], atol=1e-5, rtol=0)
    torch.testing.assert_close(text, case["pooled_text_f32"], atol=1e-5, rtol=0)
    assert not torch.allclose(seen, video, atol=1e-4)


@pytest.mark.parametrize("name", ["full", "mixed", "edge", "short_T", "cls_masked"])
@pytest.mark.parametrize(
    ("directions", "loss"),
    [("both", "MMContraLoss"), ("text_to_video", "T2VContraLoss"), ("video_to_text", "V2TContraLoss")],
)
def test_losses_equal_the_recordings(name, directions, loss):
    case = CASES[name]
    value = NCE(NCEConfig(directions=directions))(case["pooled_video_f64"], case["pooled_text_f64"])
    assert value.item() == pytest.approx(case[f"{loss}_f64"].item(), abs=1e-9)


def seeded(key, shape, base_seed):
    """The full-size recording's weights: tests/golden/full holds a seed instead of 700 MB."""
    n = np.random.RandomState((zlib.crc32(key.encode()) ^ base_seed) & 0xFFFFFFFF).standard_normal(shape)
    if key.endswith("bias"):
        n = 0.1 * n
    elif len(shape) == 1:
        n = 1 + 0.2 * n
    else:
        n = (0.5 if "embeddings" in key else 0.03) * n
    return torch.from_numpy(n.astype(np.float32))


def full_size_checkpoint(folder):
    """The released checkpoint's 310 keys and shapes, BERT-base with 6 and 12 layers."""
    shapes = json.loads((GOLDEN / "full" / "keys_and_shapes.json").read_text())
    about = json.loads((GOLDEN / "full" / "meta.json").read_text())
    weights = {}
    for name, (shape, _) in shapes.items():
        key = name.removeprefix("mmmodel.")
        is_buffer = key.endswith("position_ids")
        weights[f"mmmodel.{key}"] = torch.arange(512)[None] if is_buffer else seeded(key, shape, about["base_seed"])
    for key, (total, absolute) in about["tensor_checksums"].items():
        made = weights[f"mmmodel.{key}"].double()
        assert (made.sum().item(), made.abs().sum().item()) == pytest.approx((total, absolute), rel=1e-5)
    torch.save({"model": weights}, folder / "checkpoint_best.pt")
    return folder / "checkpoint_best.pt"


@pytest.mark.slow
def test_the_full_size_model_equals_its_recording(tmp_path):
    model = VideoCLIP.from_pretrained(full_size_checkpoint(tmp_path))
    with np.load(GOLDEN / "full" / "expected.npz") as recorded, torch.no_grad():
        case = {key: torch.from_numpy(recorded[key]) for key in ("caps", "cmasks")}
        video = torch.from_numpy(recorded["vfeats_f16"]).float(), torch.from_numpy(recorded["vmasks"])
        text = model.encode_text(*text_of(case))
        np.testing.assert_allclose(model.encode_video(*video), recorded["pooled_video"], atol=1e-5)
        np.testing.assert_allclose(text, recorded["pooled_text"], atol=1e-5)
        hidden = model.encode_video_steps(*video)[1]
        np.testing.assert_allclose(hidden, recorded["video_hidden_row1"][1:-1], atol=1e-5)


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


def test_many_clips_and_texts_keep_their_places_and_their_gradients(tiny):
    """150 rows are encoded in groups of similar length; alone each has the same embedding."""
    lengths = torch.randint(0, 7, (150,))
    features, mask = torch.randn(150, 6, 4), torch.arange(6) < lengths[:, None]
    ids, seen = torch.randint(5, 30, (150, 9)), torch.arange(9) < lengths[:, None] + 2
    video, text = tiny.encode_video(features, mask), tiny.encode_text(ids, seen)
    alone_video = torch.cat([tiny.encode_video(features[i : i + 1], mask[i : i + 1]) for i in range(150)])
    alone_text = torch.cat([tiny.encode_text(ids[i : i + 1], seen[i : i + 1]) for i in range(150)])
    torch.testing.assert_close(video, alone_video, atol=1e-5, rtol=0)
    torch.testing.assert_close(text, alone_text, atol=1e-5, rtol=0)
    weights = list(tiny.parameters())
    together = torch.autograd.grad((video * text).sum(), weights)
    for one, two in zip(together, torch.autograd.grad((alone_video * alone_text).sum(), weights), strict=True):
        torch.testing.assert_close(one, two, atol=1e-3, rtol=1e-4)


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
    with pytest.raises(ValueError, match="contains objects other than weights"):
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


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda content: content[: len(content) // 2], "is damaged, or not a torch file"),
        (lambda content: b"", "is damaged, or not a torch file"),
        (lambda content: b"<html>not found</html>", "is not read|is damaged, or not a torch file"),
    ],
)
def test_a_damaged_checkpoint_is_named(tmp_path, damage, message):
    path = tmp_path / "checkpoint_best.pt"
    path.write_bytes(damage((GOLDEN / "videoclip_released_layout.pt").read_bytes()))
    with pytest.raises(ValueError, match=rf"checkpoint_best\.pt.*({message})"):
        VideoCLIP.from_pretrained(path)


def test_a_checkpoint_of_another_model_is_named(tmp_path):
    torch.save({"model": {"conv.weight": torch.zeros(3)}}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"other\.pt is not a VideoCLIP checkpoint: it has no video_encoder"):
        VideoCLIP.from_pretrained(tmp_path / "other.pt")


def test_weights_that_are_no_numbers_are_named(tiny, tmp_path):
    weights = tiny.state_dict()
    weights["video_encoder.videomlp.linear1.bias"][0] = torch.nan
    torch.save(weights, tmp_path / "nan.pt")
    with pytest.raises(ValueError, match=r"video_encoder\.videomlp\.linear1\.bias holds NaN or infinity"):
        VideoCLIP.from_pretrained(tmp_path / "nan.pt", num_attention_heads=2)


def test_a_name_that_is_no_file_is_looked_for_on_the_hub(tiny, tmp_path, monkeypatch):
    """Its cache here: owner/model as huggingface_hub lays it out, which it reads without a network."""
    snapshot = tmp_path / "hub" / "models--someone--videoclip" / "snapshots" / "abc"
    tiny.save_pretrained(snapshot)
    (snapshot.parents[1] / "refs").mkdir()
    (snapshot.parents[1] / "refs" / "main").write_text("abc")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert VideoCLIP.from_pretrained("someone/videoclip").config == tiny.config
    with pytest.raises(ValueError, match="no checkpoint at someone/else, nor a model of that name on the hub"):
        VideoCLIP.from_pretrained("someone/else")


def small(**settings):
    torch.manual_seed(0)
    return VideoCLIP(VideoCLIPConfig(**TINY_MODEL | settings)).eval()


def same_weights(model, **settings):
    other = small(**settings)
    other.load_state_dict(model.state_dict())
    return other


def text_batch(length):
    ids = torch.arange(5, 5 + length)[None] % 300
    ids[0, 0], ids[0, -1] = 2, 3
    return ids, torch.ones_like(ids, dtype=torch.bool)


def test_the_model_alone_decides_how_much_of_a_text_is_read():
    """With max_text_len 4: [CLS], four words and [SEP], whoever made the token ids."""
    model = small(max_text_len=4)
    long, mask = text_batch(12)
    cut = torch.cat([long[:, :5], long[:, -1:]], dim=1)
    expected = model.encode_text(cut, mask[:, :6])
    torch.testing.assert_close(model.encode_text(long, mask), expected)
    assert not torch.allclose(same_weights(model, max_text_len=61).encode_text(long, mask), expected)


def test_normalize_scales_every_vector_to_unit_length():
    plain = small()
    unit = same_weights(plain, normalize=True)
    clip = torch.randn(3, 6, 512)
    for ours, theirs in (
        (unit.encode_video(clip), plain.encode_video(clip)),
        (unit.encode_text(*text_batch(8)), plain.encode_text(*text_batch(8))),
        (unit.encode_video_steps(clip), plain.encode_video_steps(clip)),
    ):
        torch.testing.assert_close(ours, theirs / theirs.norm(dim=-1, keepdim=True))
    assert (plain.unit_vectors, unit.unit_vectors) == (False, True)


def test_chunks_change_neither_vectors_nor_gradients():
    plain = small()
    chunked = same_weights(plain, chunk_size=2)
    clip, text = torch.randn(5, 6, 512), (torch.randint(5, 300, (5, 9)), torch.ones(5, 9, dtype=torch.bool))
    for model in (plain, chunked):
        (model.encode_video(clip) @ model.encode_text(*text).T).square().mean().backward()
    for (name, one), other in zip(plain.named_parameters(), chunked.parameters(), strict=True):
        torch.testing.assert_close(other.grad, one.grad, msg=name)


@pytest.mark.parametrize("own", [None, True, False])
def test_whether_seconds_attend_to_cls_is_the_models_to_say(own):
    model = small(attend_to_cls=own)
    clip = torch.randn(1, 6, 512)
    seen, hidden = (model.video_encoder(clip, torch.ones(1, 6, dtype=torch.bool), attend_to_cls=see)[:, 1:-1]
                    for see in (True, False))  # fmt: skip
    assert not torch.allclose(seen, hidden, atol=1e-4)
    torch.testing.assert_close(model.encode_video_steps(clip), hidden if own is False else seen)
    if own is None:
        torch.testing.assert_close(model.encode_video_steps(clip, attend_to_cls=False), hidden)
    else:
        with pytest.raises(ValueError, match=f"attend_to_cls={not own}, but the model was trained with"):
            model.encode_video_steps(clip, attend_to_cls=not own)


def test_starting_from_weights_of_other_heads_is_refused_and_other_lengths_are_said(tmp_path, caplog):
    """No tensor's shape shows the number of heads: with another one the weights would be read as noise."""
    small(max_video_len=20).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="model.num_attention_heads is 4, but .* was trained with 2"):
        small(pretrained=str(tmp_path), num_attention_heads=4)
    small(pretrained=str(tmp_path), normalize=True)
    assert "model.max_video_len is 32, but" in caplog.text
    assert "model.normalize is True, but" in caplog.text


def test_weights_trained_on_cosines_by_the_criterion_are_read_as_such(tmp_path):
    """A checkpoint of before normalize was the model's own."""
    config = VideoCLIPConfig(**TINY_MODEL)
    cfg = {"model": {"_name": "videoclip", **vars(config)}, "criterion": {"_name": "nce", "l2_normalize": True}}
    del cfg["model"]["normalize"]
    weights = {f"model.{key}": value for key, value in small().state_dict().items()}
    torch.save({"cfg": cfg, "model": weights}, tmp_path / "old.pt")
    assert VideoCLIP.from_pretrained(tmp_path / "old.pt").unit_vectors
    cfg["criterion"]["l2_normalize"] = False
    torch.save({"cfg": cfg, "model": weights}, tmp_path / "old.pt")
    assert not VideoCLIP.from_pretrained(tmp_path / "old.pt").unit_vectors


def test_a_text_of_one_token_is_that_token():
    """Whether its tokenizer puts one token around a text or a caller sends [SEP] alone: no division by nothing."""
    model = small()
    ids, mask = torch.tensor([[3, 0, 0], [2, 9, 3]]), torch.tensor([[True, False, False], [True] * 3])
    vectors = model.encode_text(ids, mask)
    states = model.text_encoder(input_ids=ids[:1, :1], attention_mask=mask[:1, :1]).last_hidden_state
    torch.testing.assert_close(vectors[0], states[0, 0])
    torch.testing.assert_close(vectors[1:], model.encode_text(ids[1:], mask[1:]))
