"""The estimate of a training's memory and time: what it counts, and how it grows."""

import pytest
import torch
from torch import nn

from mmpt_plugin import registry
from mmpt_plugin.tasks.estimate import PAPER_RATE, Cost, Memory, counted, estimate_cost
from tests.conftest import TINY_MODEL


def test_what_autograd_keeps_is_counted_without_parameters_and_once():
    """A linear layer keeps its input (4 x 8), and the ReLU after it, whose result a second layer reads, 4 x 16."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    assert counted(model, torch.zeros(4, 8))[0] == 4 * (4 * 8 + 4 * 16)


def test_operations_are_those_of_matrix_products_and_frozen_weights_have_no_backward_pass():
    """Forward: 2 x 4 x (8 x 16 + 16 x 2); backward: the gradients of both weights, and of the second layer's input."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    assert counted(model, torch.zeros(4, 8))[1:] == (8 * (128 + 32), 8 * (128 + 32 + 32))
    model[0].requires_grad_(False)
    assert counted(model, torch.zeros(4, 8))[1:] == (8 * (128 + 32), 8 * 32)
    assert all(weight.grad is None for weight in model.parameters())


def test_the_time_is_that_of_the_papers_training():
    """A day for 25 epochs of 1.1 million videos x 16 pairs on eight V100, 39.9 GFLOP a pair: 128 pairs per GPU."""
    updates = 25 * 1_100_000 * 16 // (8 * 128)
    assert Cost(Memory(0, 0, 0), flop=int(128 * 39.9e9)).time(updates).startswith("24.0 hours")
    assert round(PAPER_RATE / 1e12) == 25


@pytest.fixture
def estimate(kitchen):
    model = registry.models.build({"_name": "videoclip", **TINY_MODEL})
    section = {"_name": "overlapped_clips", "splits": {"train": str(kitchen.shards)}, "pairs_per_video": 4}
    dataset = registry.datasets.build(section, "train")

    def estimated(cluster_size=4, *, chunk_size=0, freq=1, **common):
        model.config.chunk_size = chunk_size
        project = {"sampler": {"cluster_size": cluster_size}, "common": common, "optimization": {"update_freq": [freq]}}
        return estimate_cost(project, model, dataset)

    estimated.parameters = sum(weight.numel() for weight in model.parameters())
    estimated.model = model
    return estimated


def test_weights_gradients_and_adam_take_sixteen_bytes_or_twenty_in_half_precision(estimate):
    assert estimate().memory.weights == 16 * estimate.parameters
    assert estimate(fp16=True).memory.weights == estimate(bf16=True).memory.weights == 20 * estimate.parameters


def test_frozen_weights_need_no_gradients(estimate):
    before = estimate().memory.weights
    frozen = estimate.model.text_encoder.requires_grad_(False)
    count = sum(weight.numel() for weight in frozen.parameters())
    assert before - estimate().memory.weights == 12 * count


def test_activations_grow_with_the_batch_and_halve_in_half_precision(estimate):
    one = estimate(4).memory
    assert one.clips == 16
    assert estimate(8).memory.activations == pytest.approx(2 * one.activations, rel=1e-6)
    assert estimate(4, fp16=True).memory.activations == pytest.approx(one.activations / 2, rel=1e-6)


def test_with_chunks_only_those_of_one_chunk_are_in_memory(estimate):
    chunked = estimate(4, chunk_size=2).memory
    assert chunked.clips == 2
    assert chunked.activations == pytest.approx(estimate(4).memory.activations / 8, rel=1e-6)
    assert estimate(4, chunk_size=99).memory.clips == 16


def test_the_line_says_what_it_counts(estimate):
    assert str(estimate().memory).endswith("for the activations of 16 clips")


def test_operations_grow_with_the_batch_and_the_batches_of_an_update_and_chunks_repeat_the_forward_pass(estimate):
    one = estimate(4).flop
    assert estimate(8).flop == pytest.approx(2 * one, rel=1e-6)
    assert estimate(4, freq=3).flop == pytest.approx(3 * one, rel=1e-6)
    assert 1.25 < estimate(4, chunk_size=2).flop / one < 1.5
    assert estimate(4, chunk_size=16).flop == one
