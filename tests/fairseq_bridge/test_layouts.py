"""One training, whatever it runs on: any number of processes, batch sizes and stops give the losses of one process.

A layout is (processes, clusters a batch, batches an update). Losses are over the clusters that all processes hold at a
time. So layouts compare where processes x clusters are equal and so are the batches an update: accumulated batches are
not each other's negatives.
"""

import json
import multiprocessing
import random

import pytest
import torch

pytest.importorskip("fairseq")

from mmpt_plugin.fairseq_bridge.train import RankInfo, fairseq_config, free_port, run_fairseq
from tests.conftest import TINY_MODEL
from tests.ranks import START, on_ranks

pytestmark = [pytest.mark.slow, pytest.mark.fairseq]

LAYOUTS = {6: [(1, 6, 1), (2, 3, 1), (3, 2, 1)], 2: [(1, 2, 3), (2, 1, 3)]}  # by the clusters of all processes
UPDATES = 6  # of six of twelve clusters each: three epochs
CRITERIA = ("nce", "best_fit_nce", "mil_nce", "sigmoid")
# How far losses of about 3 may be apart: fairseq logs three digits; the others are the precision of half numbers. At a
# learning rate of 1e-2, six updates amplify that of bf16 to 0.2; at 1e-3 it stays below 0.01.
TOLERANCE = {"fp32": 2e-3, "fp16": 1e-2, "bf16": 3e-2}


def project(kitchen, folder, criterion, precision):
    return {
        "common": {
            "seed": 3, "log_format": "json", "log_interval": 1, "log_file": str(folder / "train.log"),
            **({precision: True, "fp16_no_flatten_grads": True, "fp16_init_scale": 4} if precision != "fp32" else {}),
        },
        "task": {
            "_name": "video_text_pretraining",
            "dataset": {
                "_name": "overlapped_clips",
                "splits": {"train": str(kitchen.shards)},
                "pairs_per_video": 3,
            },
        },
        "sampler": {"_name": "uniform", "cluster_size": 1},
        "model": {"_name": "videoclip", **TINY_MODEL, "normalize": criterion != "nce"},
        "criterion": {"_name": criterion},
        "optimizer": {"_name": "adam", "adam_betas": "(0.9, 0.98)"},
        "lr_scheduler": {"_name": "fixed"},
        "dataset": {"num_workers": 0, "disable_validation": True},
        "distributed_training": {"ddp_backend": "legacy_ddp"},
        "checkpoint": {"save_dir": str(folder), "no_epoch_checkpoints": True},
    }  # fmt: skip


def laid_out(project, layout, max_update):
    _, batch_size, update_freq = layout
    return project | {
        "dataset": project["dataset"] | {"batch_size": batch_size},
        "optimization": {"lr": [1e-3], "max_epoch": 9, "max_update": max_update, "update_freq": [update_freq]},
    }


def run_rank(rank, jobs, barrier):
    """Jobs one after the other in the same three processes, of which each takes as many as its layout has."""
    from fairseq.distributed import utils

    for made, processes, port in jobs:
        barrier.wait(timeout=120)
        if rank < processes:
            rank_info = RankInfo(rank, processes, device=rank, init_method=f"tcp://localhost:{port}")
            utils.call_main(fairseq_config(rank_info.apply_to(made)), run_fairseq)
        if torch.distributed.is_initialized():
            torch.distributed.destroy_process_group()
            del utils.get_global_group._global_group  # fairseq's own memory of the group


def losses(folder):
    lines = [line for line in (folder / "train.log").read_text().splitlines() if '"num_updates"' in line]
    records = [json.loads(line[line.index('{"epoch"') :]) for line in lines if '{"epoch"' in line]
    return {int(record["num_updates"]): float(record["loss"]) for record in records if "loss" in record}


def test_any_layout_and_any_stops_have_the_losses_of_one_process(kitchen, tmp_path):
    """Every criterion in every precision: straight on one process, and stopped twice at random updates, each time to go
    on with another layout."""
    rng, jobs, runs = random.Random(0), [], []
    for criterion in CRITERIA:
        for precision in TOLERANCE:
            at_once = rng.choice(list(LAYOUTS))
            straight, broken = (tmp_path / f"{criterion}-{precision}-{kind}" for kind in ("straight", "broken"))
            for folder in (straight, broken):
                folder.mkdir()
            first, *others = LAYOUTS[at_once]
            stops = [*sorted(rng.sample(range(1, UPDATES), 2)), UPDATES]
            ways = [rng.choice(others), *rng.sample(LAYOUTS[at_once], 2)]
            for folder, parts in ((straight, [(first, UPDATES)]), (broken, list(zip(ways, stops, strict=True)))):
                made = project(kitchen, folder, criterion, precision)
                jobs += [(laid_out(made, layout, stop), layout[0], free_port()) for layout, stop in parts]
            runs.append((f"{criterion} in {precision}, {ways} to {stops}", straight, broken, TOLERANCE[precision]))
    on_ranks(run_rank, 3, jobs, multiprocessing.get_context(START).Barrier(3))
    for name, straight, broken, tolerance in runs:
        expected, found = losses(straight), losses(broken)
        assert list(expected) == list(range(1, UPDATES + 1)), name
        assert len(set(expected.values())) > 3, name  # it learns
        assert found == pytest.approx(expected, abs=tolerance), name
