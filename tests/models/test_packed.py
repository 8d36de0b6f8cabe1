"""Towers that compute no padding equal those that pad every row, by either kind of attention."""

import copy
import subprocess
import sys
from itertools import product
from unittest import mock

import pytest
import torch
import torch.nn.functional as F
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.step import flop_ratios, needed_flops
from benchmarks.towers import made_batch
from mmpt_plugin.batch import Batch, LabelledBatch, StepBatch, length_mask, places_of
from mmpt_plugin.criterions import NCE, NCEConfig
from mmpt_plugin.models import VideoCLIP, VideoCLIPConfig, load_model, rows
from mmpt_plugin.models.backbone import Backbone
from mmpt_plugin.models.encoders import masked_mean
from mmpt_plugin.models.packed import ATTENTION, Packing, attention_by_products, chosen, difference
from mmpt_plugin.registry import criterions, models
from tests.conftest import ROOT, TINY_MODEL
from tests.models.clip_family import FAMILY, TINY, TINY_CLIP, transformers_model

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
    monkeypatch.setattr("mmpt_plugin.models.rows.CPU_ROWS", 2)
    torch.testing.assert_close(model(batch.packed()), whole, atol=1e-12, rtol=0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_inference_on_a_cpu_reads_the_current_weights_in_another_order(monkeypatch, dtype):
    """The vectors are those of training; gradients, hooks and other linear layers are left as they are."""
    monkeypatch.setattr(rows, "CPU_ROWS", 2)
    assert rows.can_reorder(torch.float32)
    assert not rows.can_reorder(torch.float64)
    if not rows.can_reorder(dtype):
        pytest.skip("this processor has no products in bfloat16")
    model = small().to(dtype).eval()
    batch = batch_of(model, prefix(LENGTHS), prefix(LENGTHS + 2))
    tolerance = 1e-5 if dtype == torch.float32 else 0.05

    def reordered_layers():
        with mock.patch.object(rows, "ReorderedLinear", wraps=rows.ReorderedLinear) as made, torch.inference_mode():
            vectors = model(batch)
        torch.testing.assert_close(
            vectors, copy.deepcopy(model).double()(batch), atol=tolerance, rtol=0, check_dtype=False
        )
        return made.call_count

    state = torch.get_rng_state()
    assert reordered_layers() == 2 + 6 + 6  # the MLP on features, and one layer of BERT in each tower
    assert torch.equal(torch.get_rng_state(), state)
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    assert reordered_layers() == 14
    assert not any(isinstance(part, rows.ReorderedLinear) for part in model.modules())

    with mock.patch.object(rows, "ReorderedLinear") as made:
        model(batch)[0].sum().backward()
    assert not made.called
    assert all(weight.grad is not None for weight in model.video_encoder.videomlp.parameters())

    seen = []
    hook = model.video_encoder.videomlp.linear1.register_forward_hook(lambda *call: seen.append(call))
    assert reordered_layers() == 6
    assert len(seen) == 8  # groups of two rows, of the model and of its copy in double precision
    hook.remove()
    for linear in (model.video_encoder.videomlp.linear1, model.text_encoder.encoder.layer[0].intermediate.dense):
        torch.nn.utils.parametrizations.weight_norm(linear)
    assert reordered_layers() == 12


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


def test_on_a_cpu_attention_in_bfloat16_is_computed_by_products():
    """They equal torch's own attention, also where a row has no token; dropout replaces the same share of weights."""
    made = torch.Generator().manual_seed(3)
    parts = torch.randn(3, 7, 8, 2, 16, generator=made, dtype=torch.float64).transpose(2, 3)
    mask = with_holes()
    seen = mask.any(dim=1)
    results = []
    for attend in (attention_by_products, F.scaled_dot_product_attention):
        leaves = [part.clone().requires_grad_() for part in parts]
        out = attend(*leaves, attn_mask=mask[:, None, None, :], dropout_p=0.0)[seen]
        results.append([out, *(grad[seen] for grad in torch.autograd.grad(out.square().sum(), leaves))])
    torch.testing.assert_close(*results, atol=1e-12, rtol=0)
    ones, whole = torch.ones(64, 2, 8, 16), torch.ones(64, 1, 1, 8, dtype=torch.bool)
    dropped = attention_by_products(ones, ones, ones, attn_mask=whole, dropout_p=0.5)
    assert {round(value * 4) for value in dropped.flatten().tolist()} == set(range(9))  # of 8 weights of 1/8, doubled
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)

    for dtype, calls in ((torch.float32, 0), (torch.bfloat16, 2)):
        model = small(dropout=0.0).to(dtype)
        batch = batch_of(model, prefix(LENGTHS), prefix(LENGTHS + 2))
        expected = copy.deepcopy(model).double()(batch)
        with mock.patch("mmpt_plugin.models.packed.attention_by_products", wraps=attention_by_products) as used:
            found = model(batch)
        torch.testing.assert_close(found, expected, atol=0.05, rtol=0, check_dtype=False)
        assert used.call_count == calls  # one layer in each tower


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


def test_clips_text_tower_equals_transformers_forward_and_backward():
    theirs = transformers_model(TINY_CLIP).double()
    ours = Backbone(theirs.config, copy.deepcopy(theirs), attention="jagged")  # padded on a CPU, nonetheless
    lengths = torch.tensor([7, 2, 5, 1])
    mask = prefix(lengths)
    ids = torch.randint(38, mask.shape, generator=torch.manual_seed(0)) * mask
    ids[torch.arange(4), lengths - 1] = 39  # the end token
    weights = torch.randn(4, 16, generator=torch.manual_seed(1)).double()
    gradients = []
    for tower, vectors in (
        (theirs.text_model, theirs.text_projection(theirs.text_model(input_ids=ids).pooler_output)),
        (ours.clip.text_model, ours.text(ids, mask)[0]),
    ):
        (vectors * weights).sum().backward()
        gradients.append({name: p.grad for name, p in tower.named_parameters()})
        torch.testing.assert_close(vectors, ours.text(ids, mask, places_of(mask))[0], atol=1e-12, rtol=0)
    torch.testing.assert_close(*gradients, atol=1e-12, rtol=1e-12)


def test_a_token_of_clips_text_tower_sees_itself_and_earlier_tokens_only():
    """Also in a text that begins with a hole, whose gradients must be finite, and in one without tokens."""
    theirs = transformers_model(TINY_CLIP).double()
    mask, text = with_holes(), theirs.text_model
    ids = torch.randint(38, mask.shape, generator=torch.manual_seed(0))
    embeddings = text.embeddings.token_embedding(ids) + text.embeddings.position_embedding.weight[:8]
    seen = torch.tensor([[[j == i or (j < i and own[j]) for j in range(8)] for i in range(8)] for own in mask.tolist()])
    states = text.encoder(inputs_embeds=embeddings, attention_mask=seen[:, None]).last_hidden_state
    expected = theirs.text_projection(text.final_layer_norm(states))
    tokens = Backbone(theirs.config, theirs).text(ids, mask)[1]
    torch.testing.assert_close(tokens, expected.masked_fill(~mask[..., None], 0), atol=1e-12, rtol=0)
    assert mask[:, 0].unique().tolist() == mask.any(dim=1).unique().tolist() == [False, True]
    tokens.square().sum().backward()
    assert all(p.grad.isfinite().all() for p in text.parameters())


@pytest.mark.parametrize(("name", "seen"), [("videoclip", "features"), *product(FAMILY, ["features", "frames"])])
def test_a_step_does_not_wait_for_a_gpu(name, seen):
    """On the device `meta`, whatever needs a number from the device is an error."""
    if name == "videoclip":
        model, video = small(attention="padded", dropout=0.0), torch.zeros(7, 8, 512)
    else:
        model, video = models[name].build(TINY | {"attention": "padded"}), torch.zeros(7, 8, 16)
    if seen == "frames":
        video = torch.zeros(7, 8, 8, 8, 3, dtype=torch.uint8)
    mask = prefix(LENGTHS)
    batch = Batch(video, mask, mask * 7, mask, torch.arange(7))
    model.to("meta").train()
    loss, metrics = NCE(NCEConfig(parts=2)).compute(*model(batch.packed().to("meta")))
    loss.backward()
    assert loss.device.type == metrics["t2v_recall@1"].device.type == "meta"
    with pytest.raises((NotImplementedError, RuntimeError)):
        model(batch.to("meta"))


def test_a_step_of_fine_tuning_does_not_wait_for_a_gpu():
    mask, video = prefix(LENGTHS), torch.zeros(7, 8, 512)
    ids, shown, labels = mask * 7, torch.zeros(7, 8, 7), torch.zeros(7, 8, dtype=torch.long)
    for name, criterion, batch in (
        ("videoclip_segmenter", "frame_cross_entropy", LabelledBatch(video, mask, labels, torch.arange(7))),
        ("videoclip_step_localizer", "step_cross_entropy", StepBatch(video, mask, ids, mask, shown, torch.arange(7))),
    ):
        model = models[name].build(TINY_MODEL | {"attention": "padded"}).to("meta").train()
        loss, metrics = criterions[criterion].build({}).compute(*model(batch.packed().to("meta")))
        loss.backward()
        assert {value.device.type for value in (loss, *metrics.values())} == {"meta"}


def test_chunks_find_their_places_before_the_first_is_encoded():
    """In the backward pass, too, no chunk looks for them: it would wait for the chunk before."""
    model = small(chunk_size=2, dropout=0.0)
    batch = batch_of(model, prefix(LENGTHS), prefix(LENGTHS + 2)).packed()
    plain = small(dropout=0.0)
    plain(batch)[0].sum().backward()
    with (
        mock.patch("mmpt_plugin.models.padding.places_of", wraps=places_of) as before,
        mock.patch("mmpt_plugin.models.rows.places_of", wraps=places_of) as later,
    ):
        model(batch)[0].sum().backward()
    assert (before.call_count, later.call_count) == (8, 0)  # 7 clips and 7 texts in chunks of 2
    for own, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(own.grad, other.grad)


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
    assert "No viable backend" in difference("cpu", torch.float32, True)  # which torch may have one day
    monkeypatch.setitem(ATTENTION, "jagged", lambda q, k, v, packing, dropout, causal: q + k + v)
    assert "the two differ by" in difference("cpu", torch.float32)

    def unsupported(*arguments, **named):
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


def test_how_one_machine_computed_is_not_part_of_what_a_model_has_learned(tmp_path):
    """A model trained on a GPU, with `compile`, embeds on a machine that may have no compiler."""
    one, other = small(attention="padded"), small(attention="jagged", compile=True)
    assert one.state_dict().keys() == other.state_dict().keys()
    other.save_pretrained(tmp_path / "bert")
    loaded = load_model(tmp_path / "bert")
    assert (loaded.config.attention, loaded.config.compile) == ("auto", False)
    assert (loaded.text_encoder.attention, loaded.video_encoder.compiled) == ("auto", False)
    assert load_model(tmp_path / "bert", compile=True).text_encoder.compiled
    models["clip_mean"].build(TINY | {"attention": "jagged"}).save_pretrained(tmp_path / "clip")
    assert load_model(tmp_path / "clip").backbone.attention == "auto"
    assert load_model(tmp_path / "clip", attention="padded").backbone.attention == "padded"
