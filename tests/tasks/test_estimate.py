"""The estimate of a training's memory: what it counts, and how it grows."""

import pytest
import torch
from torch import nn

from mmpt_plugin import registry
from mmpt_plugin.tasks.estimate import estimate_memory, saved_bytes
from tests.conftest import TINY_MODEL


def test_what_autograd_keeps_is_counted_without_parameters_and_once():
    """A linear layer keeps its input (4 x 8), and the ReLU after it, whose result a second layer reads, 4 x 16."""
    model = nn.Sequential(nn.Linear(8, 16), nn.ReLU(), nn.Linear(16, 2))
    assert saved_bytes(model, torch.zeros(4, 8)) == 4 * (4 * 8 + 4 * 16)


@pytest.fixture
def estimate(kitchen):
    model = registry.models.build({"_name": "videoclip", **TINY_MODEL})
    section = {"_name": "overlapped_clips", "splits": {"train": str(kitchen.shards)}, "pairs_per_video": 4}
    dataset = registry.datasets.build(section, "train")

    def estimated(cluster_size=4, *, chunk_size=0, **common):
        model.config.chunk_size = chunk_size
        return estimate_memory({"sampler": {"cluster_size": cluster_size}, "common": common}, model, dataset)

    estimated.parameters = sum(weight.numel() for weight in model.parameters())
    estimated.model = model
    return estimated


def test_weights_gradients_and_adam_take_sixteen_bytes_or_twenty_in_half_precision(estimate):
    assert estimate().weights == 16 * estimate.parameters
    assert estimate(fp16=True).weights == estimate(bf16=True).weights == 20 * estimate.parameters


def test_frozen_weights_need_no_gradients(estimate):
    before = estimate().weights
    frozen = estimate.model.text_encoder.requires_grad_(False)
    count = sum(weight.numel() for weight in frozen.parameters())
    assert before - estimate().weights == 12 * count


def test_activations_grow_with_the_batch_and_halve_in_half_precision(estimate):
    one = estimate(4)
    assert one.clips == 16
    assert estimate(8).activations == pytest.approx(2 * one.activations, rel=1e-6)
    assert estimate(4, fp16=True).activations == pytest.approx(one.activations / 2, rel=1e-6)


def test_with_chunks_only_those_of_one_chunk_are_in_memory(estimate):
    chunked = estimate(4, chunk_size=2)
    assert chunked.clips == 2
    assert chunked.activations == pytest.approx(estimate(4).activations / 8, rel=1e-6)
    assert estimate(4, chunk_size=99).clips == 16


def test_the_line_says_what_it_counts(estimate):
    assert str(estimate()).endswith("for the activations of 16 clips")
