"""The contrastive loss, worked by hand, against recordings, and across processes."""

import math
import os
from pathlib import Path

import pytest
import torch
import torch.distributed as dist

from mmpt_plugin.criterions import NCE, NCEConfig
from tests.ranks import on_ranks

CASES = torch.load(Path(__file__).parents[1] / "golden" / "videoclip_cases.pt", weights_only=True)


def test_indistinct_pairs_cost_chance_level():
    """With equal similarities each direction is a uniform guess among B."""
    loss = NCE(NCEConfig())(torch.zeros(4, 8), torch.zeros(4, 8))
    assert loss.item() == pytest.approx(2 * math.log(4))


@pytest.mark.parametrize("case", [0, 1, 2])
def test_loss_equals_the_recordings(case):
    losses = CASES["losses"]
    loss = NCE(NCEConfig())(losses[f"pv{case}"].float(), losses[f"pt{case}"].float())
    assert loss.item() == pytest.approx(losses[f"MMContraLoss{case}"].item(), rel=1e-5)


def test_a_tie_is_no_hit():
    _, metrics = NCE(NCEConfig()).with_metrics(torch.ones(3, 2), torch.ones(3, 2))
    assert (metrics["t2v_recall@1"], metrics["v2t_recall@1"]) == (0, 0)


def test_recall_counts_each_direction():
    """Scores text x video: [[2, 0], [3, 1]]. Text 0 finds its video, video 1 its text; the others do not."""
    video, text = torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[2.0, 0.0], [3.0, 1.0]])
    _, metrics = NCE(NCEConfig()).with_metrics(video, text)
    assert (metrics["t2v_recall@1"], metrics["v2t_recall@1"]) == (0.5, 0.5)


def test_recalls_have_the_names_of_their_directions():
    """Text 1 finds its video (1/3), videos 1 and 2 find their texts (2/3)."""
    scores = torch.tensor([[2.0, 3, 0], [0, 4, 0], [5, 0, 1]])  # text x video
    _, metrics = NCE(NCEConfig()).with_metrics(torch.eye(3), scores)
    third = pytest.approx(1 / 3)
    assert metrics == {"t2v_recall@1": third, "v2t_recall@1": pytest.approx(2 / 3), "chance_recall@1": third}


def test_a_direction_alone_is_its_own_cross_entropy():
    video, text = torch.randn(5, 3), torch.randn(5, 3)
    scores, target = text @ video.T, torch.arange(5)
    for directions, rows in (("text_to_video", scores), ("video_to_text", scores.T)):
        loss = NCE(NCEConfig(directions=directions))(video, text)
        assert loss.item() == pytest.approx(torch.nn.functional.cross_entropy(rows, target).item(), rel=1e-5)


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({}, 0.410038 + 0.313262),
        ({"average_directions": True}, 0.361650),
        ({"average_directions": True, "directions": "text_to_video"}, 0.410038),
        ({"average_directions": True, "directions": "video_to_text"}, 0.313262),
    ],
)
def test_the_sum_and_the_mean_of_the_directions(settings, expected):
    """Scores text x video: [[2, 0], [1, 1]]. Rows cost log(1 + exp(-2)) and log(2), columns log(1 + exp(-1)) each."""
    loss = NCE(NCEConfig(**settings))(torch.eye(2), torch.tensor([[2.0, 0.0], [1.0, 1.0]]))
    assert loss.item() == pytest.approx(expected, abs=1e-6)


def test_the_mean_of_the_directions_is_also_that_of_the_parts():
    video, text = torch.randn(5, 6), torch.randn(5, 6)
    whole = NCE(NCEConfig(parts=2))(video, text)
    assert NCE(NCEConfig(parts=2, average_directions=True))(video, text).item() == pytest.approx(whole.item() / 2)


@pytest.mark.parametrize("parts", [0, -1])
def test_vectors_have_at_least_one_part(parts):
    with pytest.raises(ValueError, match=f"criterion.parts must be at least 1, got {parts}"):
        NCEConfig(parts=parts)


def test_the_temperature_divides_the_dot_products_of_vectors_as_they_come():
    video, text = torch.randn(5, 3), torch.randn(5, 3)
    scores = text @ video.T / 0.07
    target = torch.arange(5)
    expected = torch.nn.functional.cross_entropy(scores, target) + torch.nn.functional.cross_entropy(scores.T, target)
    loss = NCE(NCEConfig(temperature=0.07))(video, text)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)


def test_parts_have_losses_of_their_own():
    """Concatenated unit vectors, divided by the root of 2: the mean of the losses of two cosines, not the loss of the
    summed similarities."""
    torch.manual_seed(1)
    halves = [[torch.nn.functional.normalize(torch.randn(5, 3), dim=1) for _ in range(2)] for _ in range(2)]
    video, text = (torch.cat(two, dim=1) / math.sqrt(2) for two in zip(*halves, strict=True))
    plain = NCE(NCEConfig(temperature=0.1))
    expected = sum(plain(*half) for half in halves) / 2
    loss, metrics = NCE(NCEConfig(temperature=0.1, parts=2)).with_metrics(video, text)
    assert loss.item() == pytest.approx(expected.item(), rel=1e-5)
    assert metrics == plain.with_metrics(video, text)[1]
    with pytest.raises(ValueError, match=r"criterion.parts 4 does not divide the vectors' width 6"):
        NCE(NCEConfig(parts=4))(video, text)


def test_a_learned_temperature_gets_a_gradient():
    criterion = NCE(NCEConfig(learn_temperature=True, temperature=0.5))
    criterion(torch.randn(4, 3), torch.randn(4, 3)).backward()
    (parameter,) = criterion.parameters()
    assert parameter.grad is not None
    assert parameter.item() == pytest.approx(math.log(2))


def test_a_negative_temperature_is_refused():
    with pytest.raises(ValueError, match=r"criterion.temperature must be positive, got -1"):
        NCEConfig(temperature=-1.0)


def one_rank(rank: int, world_size: int, folder: str) -> None:
    os.environ.update(MASTER_ADDR="127.0.0.1")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=world_size)
    video, text, weight = torch.load(f"{folder}/pairs.pt", weights_only=True)
    weight.requires_grad_(True)
    rows = slice(rank * 3, rank * 3 + 3)
    loss = NCE(NCEConfig())(video[rows] @ weight, text[rows])
    loss.backward()
    dist.all_reduce(weight.grad)
    dist.all_reduce(loss := loss.detach())
    if rank == 0:
        torch.save((loss / world_size, weight.grad / world_size), f"{folder}/result.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_two_processes_have_the_gradients_of_one_with_the_whole_batch(tmp_path):
    torch.manual_seed(0)
    video, text, weight = torch.randn(6, 4), torch.randn(6, 5), torch.randn(4, 5)
    torch.save((video, text, weight), tmp_path / "pairs.pt")
    on_ranks(one_rank, 2, 2, str(tmp_path))
    loss, gradient = torch.load(tmp_path / "result.pt", weights_only=True)
    weight.requires_grad_(True)
    whole = NCE(NCEConfig())(video @ weight, text)
    whole.backward()
    assert loss.item() == pytest.approx(whole.item(), rel=1e-6)
    torch.testing.assert_close(gradient, weight.grad, rtol=1e-5, atol=1e-6)
