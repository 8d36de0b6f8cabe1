"""Losses over seconds and steps, of which ranks hold unequal numbers: the mean over all, as one process has it."""

import os

import pytest
import torch
import torch.distributed as dist

from mmpt_plugin.batch import NO_LABEL
from mmpt_plugin.registry import criterions
from tests.ranks import on_ranks


def batch(name):
    """Six windows, or steps of nine seconds, of which the last have few labels."""
    torch.manual_seed(0)
    if name == "step_cross_entropy":
        return torch.randn(9, 4), torch.randint(2, (9, 4)).float()
    labels = torch.randint(7, (6, 5))
    labels[2:, 1:] = NO_LABEL
    return torch.randn(6, 5, 7), labels


def one_rank(rank, folder):
    os.environ.update(MASTER_ADDR="127.0.0.1")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    for name in ("frame_cross_entropy", "step_cross_entropy"):
        logits, truth = batch(name)
        mine = slice(0, 2) if rank == 0 else slice(2, None)
        weight = torch.ones(logits.shape[-1], requires_grad=True)
        loss = criterions[name].build()(logits[mine] * weight, truth[mine])
        loss.backward()
        for value in (loss, weight.grad):
            dist.all_reduce(value.detach_())
            value /= 2
        if rank == 0:
            torch.save([loss, weight.grad], f"{folder}/{name}.pt")
    dist.barrier()
    dist.destroy_process_group()


def test_the_mean_of_two_unequal_ranks_is_that_of_one_process(tmp_path):
    on_ranks(one_rank, 2, str(tmp_path))
    for name in ("frame_cross_entropy", "step_cross_entropy"):
        logits, truth = batch(name)
        weight = torch.ones(logits.shape[-1], requires_grad=True)
        loss = criterions[name].build()(logits * weight, truth)
        loss.backward()
        found, grad = torch.load(tmp_path / f"{name}.pt", weights_only=True)
        assert found.item() == pytest.approx(loss.item(), rel=1e-6)
        torch.testing.assert_close(grad, weight.grad)
