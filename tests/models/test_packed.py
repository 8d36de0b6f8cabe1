"""Towers that compute no padding equal those that pad every row, by either kind of attention."""

import copy
import subprocess
import sys

import pytest
import torch
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step import flop_ratios, needed_flops
from benchmarks.towers import made_batch
from mmpt_plugin.batch import Batch, length_mask
from mmpt_plugin.criterions import NCE, NCEConfig
from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig
from mmpt_plugin.models.encoders import masked_mean
from mmpt_plugin.models.packed import ATTENTION, Packing, chosen, difference
from tests.conftest import ROOT, TINY_MODEL

LENGTHS = torch.tensor([5, 1, 8, 3, 8, 2, 4])


def small(**settings):
    torch.manual_seed(0)
    return VideoCLIP(VideoCLIPConfig(**TINY_MODEL | settings)).double().train()


def batch_of(model, video_mask, text_mask):
    made = torch.Generator().manual_seed(1)
    size = len(video_mask)
    video = torch.randn(size, video_mask.shape[1], model.config.feature_dim, generator=made).double()
    ids = torch.randint(5, model.config.vocab_size, (size, text_mask.shape[1]), generator=made)
    return Batch(video * video_mask[..., None], video_mask, ids * text_mask, text_mask, torch.arange(size))


def prefix(lengths):
    return length_mask(lengths.numpy(), int(lengths.max()))


def with_holes():
    mask = torch.rand(len(LENGTHS), 8, generator=torch.Generator().manual_seed(2)) < 0.5
    mask[3] = False  # a clip without a valid second
    return mask


def padded(model, batch):
    """The towers as transformers computes them, every row padded to the longest."""
    video = model.video_encoder.pool(model.video_encoder(batch.video, batch.video_mask), batch.video_mask)
    states = model.text_encoder(input_ids=batch.text, attention_mask=batch.text_mask).last_hidden_state
    counted = batch.text_mask.clone()
    counted[:, 0] = ~counted[:, 1:].any(dim=1)
    return video, masked_mean(states, counted)


@pytest.mark.parametrize("attention", ["padded", "jagged"])
@pytest.mark.parametrize("video_mask", [prefix(LENGTHS), with_holes()], ids=["prefix", "holes"])
def test_packed_towers_equal_padded_ones_forward_and_backward(attention, video_mask):
    model = small(attention=attention, dropout=0.0)
    batch = batch_of(model, video_mask, prefix(LENGTHS + 2))
    gradients = []
    for vectors in (model(batch), model(batch.packed()), padded(model, batch)):
        model.zero_grad()
        NCE(NCEConfig())(*vectors).backward()
        gradients.append({name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None})
        torch.testing.assert_close(vectors, padded(model, batch), atol=1e-12, rtol=0)
    for found in gradients[:2]:
        assert found.keys() == gradients[2].keys()
        for name, gradient in found.items():
            torch.testing.assert_close(gradient, gradients[2][name], atol=1e-12, rtol=0, msg=name)


def test_a_model_of_ones_own_need_not_take_places():
    class Own(VideoCLIP):
        def video_vectors(self, video, mask):
            return super().video_vectors(video, mask)

    torch.manual_seed(0)
    own, plain = Own(VideoCLIPConfig(**TINY_MODEL)).double(), small(dropout=0.0)
    batch = batch_of(plain, prefix(LENGTHS), prefix(LENGTHS + 2)).packed()
    torch.testing.assert_close(own(batch), plain(batch))


def test_many_rows_on_a_cpu_are_encoded_in_groups_of_similar_length(monkeypatch):
    model = small(dropout=0.0)
    batch = batch_of(model, prefix(LENGTHS), prefix(LENGTHS + 2))
    whole = model(batch.packed())
    monkeypatch.setattr("mmpt_plugin.models.encoders.CPU_ROWS", 2)
    torch.testing.assert_close(model(batch.packed()), whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("attention", ["padded", "jagged"])
def test_dropout_has_its_distribution(attention):
    """The mean of many passes is that of the padded towers within five standard errors."""
    model = small(attention=attention, dropout=0.3)
    batch = batch_of(model, prefix(LENGTHS), prefix(LENGTHS + 2))
    with torch.no_grad():
        draws = [torch.stack([run(batch)[0] for _ in range(200)]) for run in (model, lambda b: padded(model, b))]
    ours, theirs = draws
    error = (ours.var(dim=0) / 200 + theirs.var(dim=0) / 200).sqrt()
    assert ((ours.mean(dim=0) - theirs.mean(dim=0)) / error).abs().max() < 5
    torch.testing.assert_close(ours.std(dim=0).mean(), theirs.std(dim=0).mean(), rtol=0.05, atol=0)


def test_no_flops_are_spent_on_padding():
    model = VideoCLIP(VideoCLIPConfig(hidden_size=64, intermediate_size=256, num_attention_heads=2, vocab_size=300))
    lengths = torch.arange(3, 33)
    batch = batch_of(model, prefix(lengths), prefix(2 * lengths - 1)).packed()
    batch = Batch(batch.video.float(), batch.video_mask, batch.text, batch.text_mask, batch.video_ids).packed()
    counts = {}
    with torch.inference_mode(), sdpa_kernel(SDPBackend.MATH):
        for name, run in (("packed", model), ("padded", lambda b: padded(model, b))):
            with FlopCounterMode(display=False) as counter:
                run(batch)
            counts[name] = counter.get_total_flops() / needed_flops(model.config, batch)
    assert counts["padded"] > 1.7
    assert 1 <= counts["packed"] < 1.2  # the padding of attention counts more here than at the full width


def test_at_the_full_size_almost_all_flops_are_of_real_tokens():
    """Hand-worked for one clip of 2 s and one text of 3 tokens, with D = 768: 4 and 3 tokens, in 6 and 12 layers."""
    config = VideoCLIPConfig()
    one = batch_of(small(feature_dim=512), prefix(torch.tensor([2])), prefix(torch.tensor([3])))
    weights = 12 * 768**2
    layers = 6 * (2 * weights * 4 + 4 * 768 * 16) + 12 * (2 * weights * 3 + 4 * 768 * 9)
    assert needed_flops(config, one) == layers + 2 * 2 * 768 * (512 + 768)
    ratios = flop_ratios(config, made_batch(256, config))
    assert 1 < ratios["packed_flop_ratio"] < 1.05
    assert 1 < ratios["grouped_flop_ratio"] < 1.05


def test_a_step_does_not_wait_for_a_gpu():
    """On the device `meta`, whatever needs a number from the device is an error."""
    model = small(attention="padded", dropout=0.0).to("meta")
    batch = batch_of(small(), prefix(LENGTHS), prefix(LENGTHS + 2))
    loss, metrics = NCE(NCEConfig()).compute(*model(batch.packed().to("meta")))
    loss.backward()
    assert loss.device.type == metrics["t2v_recall@1"].device.type == "meta"
    with pytest.raises((NotImplementedError, RuntimeError)):
        model(batch.to("meta"))


COMPILED = """
from functools import partial

import torch
from mmpt_plugin.batch import length_mask
from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig

torch.compile = partial(torch.compile, backend="aot_eager")  # the default takes minutes on a CPU
sizes = dict(hidden_size=32, num_attention_heads=2, intermediate_size=64, num_video_layers=2, num_text_layers=2,
             vocab_size=300, dropout=0.0)
torch.manual_seed(0)
model = VideoCLIP(VideoCLIPConfig(**sizes, compile=True)).double()
plain = VideoCLIP(VideoCLIPConfig(**sizes)).double()
plain.load_state_dict(model.state_dict())
for name, rows in (("encode_video", lambda n: torch.randn(n, 8, 512).double()),
                   ("encode_text", lambda n: torch.randint(5, 300, (n, 8)))):
    for size in (5, 7, 6, 200):  # 200 rows are encoded in groups
        mask = length_mask(torch.randint(1, 9, (size,)).numpy(), 8)
        given = rows(size), mask
        one, other = getattr(model, name)(*given), getattr(plain, name)(*given)
        torch.testing.assert_close(one, other, atol=1e-10, rtol=0)
        one.square().sum().backward()
        torch._dynamo.config.error_on_recompile = True
    torch._dynamo.config.error_on_recompile = False

tower = model.text_encoder
tower.attention = "jagged"  # on a CPU, lists of tensors, which torch can't compile
try:
    model.encode_text(*given)
except ValueError as error:
    print(error)
"""


@pytest.mark.slow
def test_each_tower_compiles_as_one_graph_for_all_sizes():
    """A graph break is an error, and so is compiling again for other sizes. In a process of its own, without the type
    checks of tests."""
    done = subprocess.run([sys.executable, "-c", COMPILED], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr[-3000:]
    assert done.stdout.startswith("model.compile: ")
    assert len(done.stdout.splitlines()) == 1


def test_jagged_attention_is_chosen_only_where_it_gives_the_same(monkeypatch):
    assert difference("cpu", torch.float32) is None
    assert chosen("cpu", torch.float32) == "padded"
    monkeypatch.setitem(ATTENTION, "jagged", lambda q, k, v, packing, dropout: q + k + v)
    assert "the two differ by" in difference("cpu", torch.float32)

    def unsupported(*arguments):
        raise RuntimeError("no kernel\nof any kind")

    monkeypatch.setitem(ATTENTION, "jagged", unsupported)
    assert difference("cpu", torch.float32) == "no kernel"


def test_rows_are_packed_and_padded_again():
    mask = torch.tensor([[True, False, True], [False, False, False], [False, True, True]])
    packing = Packing.of(mask)
    assert packing.places.tolist() == [0, 2, 7, 8]
    assert packing.rows.tolist() == [0, 0, 2, 2]
    assert packing.positions.tolist() == [0, 2, 1, 2]
    rows = torch.arange(9.0).view(3, 3, 1)
    assert packing.pack(rows).flatten().tolist() == [0, 2, 7, 8]
    assert packing.pad(packing.pack(rows)).flatten().tolist() == [0, 0, 2, 0, 0, 0, 0, 7, 8]


def test_an_unknown_kind_of_attention_is_refused():
    with pytest.raises(ValueError, match="model.attention must be auto, padded or jagged, got flash"):
        VideoCLIPConfig(attention="flash")


def test_the_chosen_attention_is_not_part_of_what_a_model_has_learned():
    one, other = small(attention="padded"), small(attention="jagged")
    other.load_state_dict(copy.deepcopy(one.state_dict()))
    assert one.state_dict().keys() == other.state_dict().keys()
