"""Adam with a backbone, against plain NumPy: four groups, with and without fp16, and states of other runs."""

import math

import numpy as np
import pytest
import torch

pytest.importorskip("mmpt_plugin.fairseq_bridge")

from fairseq.optim import FP16Optimizer, MemoryEfficientFP16Optimizer, build_optimizer
from fairseq.optim.adam import FairseqAdam
from omegaconf import OmegaConf
from torch import nn

from mmpt_plugin.fairseq_bridge import BackboneAdam, FusedAdamW, WarmupCosine
from mmpt_plugin.fairseq_bridge.model import FairseqModelAdapter
from mmpt_plugin.fairseq_bridge.optimizer import BackboneAdamConfig, BiasGroup, mark_biases
from mmpt_plugin.fairseq_bridge.train import fairseq_config
from mmpt_plugin.models.clip import BACKBONE

pytestmark = pytest.mark.fairseq

CLIP4CLIP = {
    "_name": "adam_with_backbone",
    "backbone_lr": 1e-2,
    "adam_betas": "(0.9, 0.98)",
    "adam_eps": 1e-6,
    "weight_decay": 0.2,
    "no_bias_decay": True,
    "no_bias_correction": True,
}
RATE, TOTAL, WARMUP = 1e-1, 40, 4


class Towers(nn.Module):
    """A backbone and an LSTM behind it, whose biases have names such as bias_ih_l0."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.backbone = nn.Linear(3, 2)
        self.recurrent = nn.LSTM(2, 2)
        for weight in self.backbone.parameters():
            weight.param_group = BACKBONE


def gradients(shapes, step):
    """Of a norm above 1 in even steps and below it in odd ones, in half precision."""
    rng = np.random.default_rng(step)
    grads = {name: rng.normal(size=shape) for name, shape in shapes.items()}
    norm = math.sqrt(sum((grad**2).sum() for grad in grads.values()))
    return {name: (grad / norm * (3.0, 0.25)[step % 2]).astype(np.float16) for name, grad in grads.items()}


def clipped(grads, norm):
    return [grad * min(1.0, 1.0 / (norm + 1e-6)) for grad in grads]


def restated(weights, steps, *, rounded=lambda weight: weight):
    """CLIP4Clip's training: a global and a per-tensor clip at 1, no correction, decoupled decay of all but biases."""
    weights = {name: rounded(weight.astype(np.float64)) for name, weight in weights.items()}
    first = {name: np.zeros_like(weight) for name, weight in weights.items()}
    second = {name: np.zeros_like(weight) for name, weight in weights.items()}
    for step in range(steps):
        progress = step / TOTAL
        share = progress / 0.1 if progress < 0.1 else 0.5 * (1 + math.cos(math.pi * progress))
        grads = gradients({name: weight.shape for name, weight in weights.items()}, step)
        grads = {name: grad.astype(np.float64) for name, grad in grads.items()}
        whole = clipped(grads.values(), math.sqrt(sum((grad**2).sum() for grad in grads.values())))
        for name, grad in zip(weights, whole, strict=True):
            (grad,) = clipped([grad], np.linalg.norm(grad))
            first[name] = 0.9 * first[name] + 0.1 * grad
            second[name] = 0.98 * second[name] + 0.02 * grad**2
            update = first[name] / (np.sqrt(second[name]) + 1e-6)
            if "bias" not in name:
                update += 0.2 * weights[name]
            rate = share * (1e-2 if name.startswith("backbone.") else 1e-1)
            weights[name] = rounded(weights[name] - rate * update)
    return weights


def trained(model, optimizer, steps, *, start=0, scale=1.0, total=TOTAL):
    """As fairseq's trainer takes its steps; `scale` is that of fp16's losses."""
    schedule = OmegaConf.create({"lr": [RATE], "warmup_updates": WARMUP, "total_num_update": total})
    schedule = WarmupCosine(schedule, optimizer)
    schedule.step_update(start)
    for step in range(start, start + steps):
        optimizer.zero_grad()
        shapes = {name: tuple(weight.shape) for name, weight in model.named_parameters()}
        for (_, weight), grad in zip(model.named_parameters(), gradients(shapes, step).values(), strict=True):
            weight.grad = (torch.from_numpy(grad).float() * scale).to(weight.dtype)
        optimizer._needs_sync = True
        optimizer.clip_grad_norm(1.0)
        optimizer.step()
        schedule.step_update(step + 1)
    return {name: weight.detach().double().numpy() for name, weight in model.named_parameters()}


def config(**common):
    return fairseq_config({"common": common, "optimizer": CLIP4CLIP, "optimization": {"lr": [RATE], "clip_norm": 1.0}})


def compare(found, expected, start, tolerance):
    """By how far each weight went, since no weight goes far."""
    for name, weight in expected.items():
        assert abs(weight - start[name]).max() > 0.01, name
        np.testing.assert_allclose(found[name] - start[name], weight - start[name], rtol=tolerance, atol=tolerance / 10)


def test_every_step_is_clip4clips():
    """A per-tensor clip can't act after a global one at the same norm, so the optimizer needs none."""
    model = Towers()
    mark_biases(model)
    start = {name: weight.detach().numpy().copy() for name, weight in model.named_parameters()}
    optimizer = build_optimizer(config().optimizer, list(model.parameters()))
    found = trained(model, optimizer, 12)
    compare(found, restated(start, 12), start, 1e-4)


def half(weight):
    return weight.astype(np.float16).astype(np.float64)


@pytest.mark.parametrize(
    ("kind", "rounded"), [(FP16Optimizer, lambda weight: weight), (MemoryEfficientFP16Optimizer, half)]
)
def test_fp16_keeps_the_groups_and_the_steps(kind, rounded):
    """The copies in single precision are in the groups of their weights; without copies the weights are rounded."""
    model = Towers()
    mark_biases(model)
    model.half()
    start = {name: weight.detach().float().numpy() for name, weight in model.named_parameters()}
    optimizer = kind.build_optimizer(config(fp16=True, fp16_no_flatten_grads=True), list(model.parameters()))
    optimizer.scaler.loss_scale = 8.0
    groups = optimizer.optimizer.param_groups
    assert [[tuple(weight.shape) for weight in group["params"]] for group in groups] == [
        [(8, 2), (8, 2)], [(8,), (8,)], [(2, 3)], [(2,)],
    ]  # fmt: skip
    assert [group["lr_scale"] for group in groups] == pytest.approx([1, 1, 0.1, 0.1])
    assert [group["weight_decay"] for group in groups] == [0.2, 0, 0.2, 0]
    expected = restated(start, 12, rounded=rounded)
    compare(trained(model, optimizer, 12, scale=8.0), expected, start, 2e-2)
    if kind is FP16Optimizer:
        copies = dict(zip(start, (copy.detach().numpy() for copy in optimizer.fp32_params), strict=True))
        compare(copies, expected, start, 1e-4)


def test_by_default_it_is_fairseqs_adam():
    """With one rate for all: corrected averages, and biases that decay."""
    ours, theirs = Towers(), Towers()
    mark_biases(ours)
    options = {"lr": [RATE], "adam_betas": "(0.9, 0.98)", "weight_decay": 0.2}
    found = trained(ours, BackboneAdam(BackboneAdamConfig(backbone_lr=RATE, **options), list(ours.parameters())), 6)
    theirs_adam = FairseqAdam(BackboneAdamConfig(**options), list(theirs.parameters()))
    for name, weight in trained(theirs, theirs_adam, 6).items():
        np.testing.assert_array_equal(found[name], weight)


def test_a_bias_is_marked_within_the_group_that_it_has():
    """Under the name that the model gave it, which fairseq's composite optimizer looks up."""
    adapter = FairseqModelAdapter(Towers())
    marked = {name: weight.param_group for name, weight in adapter.model.named_parameters() if "bias" in name}
    assert marked == {"backbone.bias": "backbone", "recurrent.bias_ih_l0": "default", "recurrent.bias_hh_l0": "default"}
    assert all(isinstance(group, BiasGroup) for group in marked.values())
    assert {"backbone": 1}[marked["backbone.bias"]] == 1
    assert type(adapter.model.backbone.weight.param_group) is str
    assert not hasattr(adapter.model.recurrent.weight_ih_l0, "param_group")


def made(**options):
    model = Towers()
    mark_biases(model)
    values = {key: value for key, value in CLIP4CLIP.items() if key != "_name"} | options
    return model, BackboneAdam(BackboneAdamConfig(lr=[RATE], **values), list(model.parameters()))


def test_a_stopped_run_continues_as_if_it_had_not_stopped(tmp_path):
    model, optimizer = made()
    expected = trained(model, optimizer, 8)
    model, optimizer = made()
    trained(model, optimizer, 5)
    torch.save((model.state_dict(), optimizer.state_dict()), tmp_path / "state.pt")
    weights, state = torch.load(tmp_path / "state.pt", weights_only=True)
    model, optimizer = made()
    model.load_state_dict(weights)
    optimizer.load_state_dict(state)
    for name, weight in trained(model, optimizer, 3, start=5).items():
        np.testing.assert_array_equal(weight, expected[name])


def test_an_override_of_the_decay_on_resuming_leaves_biases_alone():
    _, optimizer = made()
    state = optimizer.state_dict()
    optimizer.load_state_dict(state, {"weight_decay": 0.3})
    assert [group["weight_decay"] for group in optimizer.param_groups] == [0.3, 0, 0.3, 0]


def test_a_state_without_the_new_settings_loads():
    """Of a run under version 0.1, whose groups have no key bias_correction."""
    _, before = made(no_bias_decay=False, no_bias_correction=False)
    state = before.state_dict()
    assert len(state["param_groups"]) == 2
    for group in state["param_groups"]:
        del group["bias_correction"]
    _, after = made(no_bias_decay=False, no_bias_correction=False)
    after.load_state_dict(state)
    assert [group["bias_correction"] for group in after.param_groups] == [True, True]


def test_a_state_of_other_groups_is_named():
    _, two = made(no_bias_decay=False)
    _, four = made()
    with pytest.raises(
        ValueError, match=r"has other groups of weights: .* optimizer.no_bias_decay, or .*\.reset_optim"
    ):
        four.load_state_dict(two.state_dict())


def test_a_backbone_alone_has_its_own_rate():
    """A model that adds no layers to CLIP."""
    model = Towers().backbone
    mark_biases(model)
    optimizer = BackboneAdam(
        BackboneAdamConfig(lr=[1e-4], backbone_lr=1e-7, adam_betas="(0.9, 0.98)"), model.parameters()
    )
    optimizer.set_lr(5e-5)
    assert [group["lr"] for group in optimizer.param_groups] == pytest.approx([5e-8])
    assert optimizer.get_lr() == pytest.approx(5e-5)


def fused(**options):
    """Towers with `fused_adamw`, and Towers with fairseq's Adam, with the same settings."""
    settings = {"adam_betas": "(0.9, 0.98)", "weight_decay": 0.2, "adam_eps": 1e-12} | options
    pair = []
    for name in ("fused_adamw", "adam"):
        values = fairseq_config({"optimizer": {"_name": name, **settings}, "optimization": {"lr": [RATE]}})
        model = Towers()
        pair.append((model, build_optimizer(values.optimizer, list(model.parameters()))))
    return pair


def test_fused_adamw_takes_the_steps_of_fairseqs_adam():
    (ours, fused_adamw), (theirs, adam) = fused()
    assert type(fused_adamw) is FusedAdamW
    start = {name: weight.detach().numpy().copy() for name, weight in ours.named_parameters()}
    compare(trained(ours, fused_adamw, 12), trained(theirs, adam, 12), start, 1e-4)


def test_fused_adamw_and_fairseqs_adam_load_each_others_state():
    for switched in ("fused_adamw", "adam"):
        (ours, fused_adamw), (theirs, adam) = fused()
        start = {name: weight.detach().numpy().copy() for name, weight in ours.named_parameters()}
        optimizers = {"fused_adamw": (ours, fused_adamw), "adam": (theirs, adam)}
        model, optimizer = optimizers.pop(switched)
        other_model, other = optimizers.popitem()[1]
        expected = trained(model, optimizer, 12)
        trained(other_model, other, 6)
        again = dict(zip(("fused_adamw", "adam"), fused(), strict=True))[switched]
        again[0].load_state_dict(other_model.state_dict())
        again[1].load_state_dict(other.state_dict(), again[1].optimizer_config)
        compare(trained(*again, 6, start=6), expected, start, 1e-4)


def test_fused_adamw_updates_a_copy_in_single_precision():
    """The copy goes where fairseq's Adam takes it. It may be flat, which needs a GPU; weights in half precision alone
    are refused."""
    copies = []
    for name in ("fused_adamw", "adam"):
        optimizer = {"_name": name, "adam_betas": "(0.9, 0.98)", "adam_eps": 1e-12}
        common = {"fp16": True, "fp16_no_flatten_grads": True}
        values = fairseq_config({"common": common, "optimizer": optimizer, "optimization": {"lr": [RATE]}})
        model = Towers().half()
        made = FP16Optimizer.build_optimizer(values, list(model.parameters()))
        assert made.supports_flat_params
        trained(model, made, 6, scale=made.scaler.loss_scale)
        copies.append([copy.detach() for copy in made.fp32_params])
    torch.testing.assert_close(copies[0], copies[1], rtol=1e-4, atol=1e-4)
    values = fairseq_config({"common": {"memory_efficient_fp16": True}, "optimizer": {"_name": "fused_adamw"}})
    with pytest.raises(ValueError, match="Unsupported optimizer"):
        MemoryEfficientFP16Optimizer.build_optimizer(values, list(Towers().half().parameters()))
