"""Every loss is computed in full precision, whatever precision the model uses; learned scalars work in trainers."""

import math

import pytest
import torch
import torch.nn.functional as F

from mmpt_plugin.criterions import NCE, NCEConfig, Sigmoid, SigmoidConfig
from mmpt_plugin.criterions.criterion import full_precision
from mmpt_plugin.registry import criterions

SETTINGS = {"nce": {"temperature": 0.01}}  # scores of up to 100, where half precision has steps of 1/16


def batch(name):
    """What the criterion is called with: leaves of float32, and what else it takes."""
    torch.manual_seed(0)
    if name == "frame_cross_entropy":
        return [torch.randn(3, 5, 7, requires_grad=True), torch.randint(7, (3, 5))], {}
    if name == "step_cross_entropy":
        return [torch.randn(9, 4, requires_grad=True), torch.randint(2, (9, 4)).float()], {}
    pairs = [F.normalize(torch.randn(6, 8), dim=1).requires_grad_(True) for _ in range(2)]
    takes_ids = "video_ids" in criterions[name].cls.batch_fields
    return pairs, {"video_ids": torch.tensor([0, 0, 1, 2, 2, 3])} if takes_ids else {}


def graded(name, outputs, named, *, autocast=False, dtype=torch.float32):
    criterion = criterions[name].build(SETTINGS.get(name, {}))
    leaves = [
        output.detach().to(dtype).requires_grad_(True) if output.is_floating_point() else output for output in outputs
    ]
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=autocast):
        loss = criterion(*leaves, **named)
    loss.backward()
    return loss.detach(), [leaf.grad for leaf in leaves if leaf.grad is not None]


BUILT_IN = [name for name in criterions if criterions[name].cls.__module__.startswith("mmpt_plugin.")]


@pytest.mark.parametrize("name", BUILT_IN)
def test_autocast_changes_neither_a_loss_nor_its_gradients(name):
    outputs, named = batch(name)
    loss, grads = graded(name, outputs, named)
    under, grads_under = graded(name, outputs, named, autocast=True)
    torch.testing.assert_close(under, loss, rtol=1e-6, atol=0)
    for one, other in zip(grads_under, grads, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", BUILT_IN)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_outputs_have_the_loss_of_their_floats(name, dtype):
    outputs, named = batch(name)
    loss, _ = graded(name, outputs, named, dtype=dtype)
    floats = [output.detach().to(dtype).float() if output.is_floating_point() else output for output in outputs]
    expected, _ = graded(name, floats, named)
    assert loss.dtype == torch.float32
    torch.testing.assert_close(loss, expected, rtol=1e-6, atol=0)


def test_a_fixed_temperature_keeps_its_digits_when_a_criterion_is_halved():
    """As a bfloat16 logarithm 0.01 would be 1/98.86."""
    criterion = NCE(NCEConfig(temperature=0.01)).bfloat16()
    assert criterion.scale() == pytest.approx(100, rel=1e-12)


def test_a_learned_scale_neither_runs_on_beyond_its_limit_nor_stays_there():
    """Gradients that increase the scale for many steps, and then decrease it."""
    criterion = NCE(NCEConfig(temperature=0.02, learn_temperature=True))
    optimizer = torch.optim.Adam(criterion.parameters(), lr=0.1)
    video = F.normalize(torch.randn(6, 4, generator=torch.manual_seed(0)), dim=1)

    def descend(text, steps):
        for _ in range(steps):
            optimizer.zero_grad()
            criterion(video, text).backward()
            optimizer.step()

    descend(video, 200)
    assert criterion.scale().item() == pytest.approx(100)
    assert math.log(100) <= criterion.log_scale.item() < math.log(100) + 1  # Adam's momentum goes on a little
    descend(video.flip(0), 60)
    assert criterion.scale().item() < 50


@pytest.mark.parametrize("criterion", [NCE(NCEConfig(learn_temperature=True)), Sigmoid(SigmoidConfig())])
def test_learned_numbers_have_a_dimension_and_those_of_earlier_checkpoints_are_read(criterion):
    """fairseq's data-parallel wrapper slices parameters, which a number without a dimension does not allow."""
    assert {tuple(parameter.shape) for parameter in criterion.parameters()} == {(1,)}
    earlier = {name: torch.tensor(0.25) for name, _ in criterion.named_parameters()}
    torch.nn.ModuleDict({"criterion": criterion}).load_state_dict(
        {f"criterion.{name}": value for name, value in earlier.items()}
    )
    assert [parameter.tolist() for parameter in criterion.parameters()] == [[0.25]] * len(earlier)


def test_doubles_stay_doubles_and_whole_numbers_whole():
    for dtype, expected in (
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
        (torch.float32, torch.float32),
        (torch.float64, torch.float64),
        (torch.int64, torch.int64),
    ):
        assert full_precision(torch.ones(2, dtype=dtype)).dtype == expected
