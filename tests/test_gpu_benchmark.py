"""`python -m benchmarks.gpu`, whose parts run on a CPU too, and `benchmarks.scaling`, whose figures are arithmetic."""

import json
import math
import os
import subprocess
import sys
import time
from dataclasses import replace

import pytest
import torch
from torch import nn

from benchmarks.gpu import PARTS, Part, run
from benchmarks.gpu_parts import ON_CPU, attempt, counts
from benchmarks.scaling import CLUSTERS, H100, V100, Known, Work, estimate, full_size, known_of, table
from benchmarks.step import Updates
from benchmarks.towers import WAYS, build, made_batch
from tests.conftest import ROOT

QUICK = replace(ON_CPU, patience=1.0)


@pytest.mark.slow
@pytest.mark.fairseq
def test_without_a_gpu_every_part_runs_at_a_small_size(tmp_path):
    pytest.importorskip("fairseq")
    out = tmp_path / "gpu.json"
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.gpu", "--json", out], cwd=ROOT, capture_output=True, text=True, check=False,
        env=os.environ | {"OMP_NUM_THREADS": "1", "CUDA_VISIBLE_DEVICES": ""},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.startswith("no GPU: ")
    results = json.loads(out.read_text())
    assert results["device"] == "CPU"
    assert results["failures"] == {}
    parts = results["parts"]
    assert parts.keys() == results["seconds"].keys() == PARTS.keys()
    assert parts["step"].keys() == {f"{dtype} {way}" for dtype in ("bfloat16", "float32") for way in WAYS}
    for figures in [*parts["step"].values(), *parts["compiled"].values()]:
        assert figures["pairs_per_s"] == pytest.approx(96 / figures["seconds"])
        assert figures["matmul_fraction"] > 0
    assert parts["forward"]["ours float32"]["largest_difference"] < 1e-5
    assert parts["extraction"]["s3d"]["frames"] == 2 * 4
    assert parts["extraction"]["clip"]["frames"] == 2 * 1
    assert parts["index"]["2000"]["index"] == "Flat"
    one, end = parts["loader"]["one process"], parts["loader"]["1 workers"]
    assert end["ratio"] == pytest.approx(end["pairs_per_s"] / one["pairs_per_s"])


def good(sizes):
    yield "first", {"figure": 1.0}
    yield attempt("second", int, "no number")
    yield "third", {"figure": 3.0}


def breaks(sizes):
    yield "first", {"figure": 1.0}
    raise RuntimeError("no kernel\nof any kind")


def crashes(sizes):
    yield "first", {"figure": 1.0}
    os._exit(7)


def hangs(sizes):
    yield "first", {"figure": 1.0}
    time.sleep(600)


def test_a_part_that_fails_is_one_line_and_loses_nothing(tmp_path, capsys):
    out = tmp_path / "gpu.json"
    parts = {"breaks": breaks, "crashes": crashes, "hangs": hangs, "good": good}
    limits = dict.fromkeys(parts, 300) | {"hangs": 1}
    results = run({name: Part(part, limits[name]) for name, part in parts.items()}, QUICK, out, {"device": "made"})
    assert json.loads(out.read_text()) == results
    assert results["failures"] == {
        "breaks": "RuntimeError: no kernel",
        "crashes": "its process ended with status 7",
        "hangs": "stopped after 1 s",
        "good second": "ValueError: invalid literal for int() with base 10: 'no number'",
    }
    assert results["parts"]["good"] == {"first": {"figure": 1.0}, "third": {"figure": 3.0}}
    assert all(results["parts"][name] == {"first": {"figure": 1.0}} for name in ("breaks", "crashes"))
    assert "breaks failed: RuntimeError: no kernel\n" in capsys.readouterr().out


def test_all_parts_together_take_less_than_8_minutes():
    assert sum(part.limit for part in PARTS.values()) <= 8 * 60


def test_the_counts_of_tests_are_those_of_pytests_last_line():
    assert counts("..s\n2 passed, 1 skipped, 26 deselected in 1.23s\n") == {"passed": 2, "skipped": 1, "deselected": 26}


def test_all_ways_compute_the_same():
    """More rows than one group has."""
    results = {}
    for way in WAYS:
        model, forward = build(way, "tiny", torch.device("cpu"), torch.float32)
        with torch.inference_mode():
            results[way] = torch.stack(forward(model.eval(), made_batch(70, model.config).packed()))
    for found in results.values():
        torch.testing.assert_close(found, results["eager"], atol=1e-5, rtol=0)


def test_small_updates_are_not_lost_in_half_precision():
    """400 steps of 1e-5 from 1 are 0.996; bfloat16 has 0.99609375 there, and nothing between it and 1."""
    model = nn.Linear(1, 1, bias=False).to(torch.bfloat16)
    nn.init.ones_(model.weight)
    updates = Updates(model)
    for _ in range(400):
        model.weight.grad = torch.ones_like(model.weight)
        updates.step()
    assert model.weight.item() == 0.99609375


def test_a_step_is_computing_gathering_and_reducing():
    """Hand-worked for 8 V100 (150 GB/s in each direction): 62.5 TFLOP at half of 125 TFLOP/s is 1 s. The 512 pairs of a
    rank have 512 x 2 x 768 x 4 = 3,145,728 bytes of embeddings: 7 of them are received, and 2 x 7/8 x 8 = 14 are sent
    for the gradients. The weights' gradients of 6 GB are sent 2 x 7/8 times."""
    work = Work(flops=62.5e12, weights=3 * 10**9, width=768)
    row = estimate(CLUSTERS[0], work, Known(fraction=0.5, index=8.0))
    assert row.compute == 1
    assert row.gather == pytest.approx(21 * 3_145_728 / 150e9)
    assert row.all_reduce == pytest.approx(10.5e9 / 150e9)
    step = 1 + 0.000440402 + 0.07
    assert row.pairs_per_s == pytest.approx(4096 / step)
    steps = 17.6e6 / 4096
    assert row.epoch == pytest.approx(steps * step + steps / 3 + 1)
    assert row.share == pytest.approx((steps / 3 + 1) / row.epoch)


def test_four_nodes_reduce_over_one_link_each():
    """2 x 31/32 x 6 GB over 100 Gb/s."""
    row = estimate(CLUSTERS[1], Work(flops=62.5e12, weights=3 * 10**9, width=768), Known(fraction=0.5, index=8.0))
    assert row.all_reduce == pytest.approx(11.625e9 / 12.5e9)


def test_measured_figures_replace_the_assumptions_of_that_gpu():
    results = {
        "device": "NVIDIA H100 80GB HBM3",
        "parts": {
            "step": {
                "bfloat16 padded": {"needed_flops_per_s": 98.9e12},
                "bfloat16 packed_jagged": {"needed_flops_per_s": 494.5e12},
                "float32 eager": {"needed_flops_per_s": 800e12},
            },
            "index": {"1100000": {"seconds": 2.5}},
        },
    }
    assert known_of(H100, results) == Known(pytest.approx(0.5), 2.5, measured=True)
    assert known_of(V100, results) == known_of(V100, {})
    assert not known_of(V100, {}).measured
    lines = table(full_size(), results)
    assert lines[0] == "Arithmetic, not a measurement."
    assert [" measured " in line for line in lines if " × " in line and line.startswith("|")] == [False, False, True]


def test_the_full_size_has_the_weights_of_bert_base_twice():
    """The words, positions, types and norm of both; 12 + 6 layers of 7,087,872 weights; the MLP of the video."""
    embeddings = (30522 + 512 + 2) * 768 + 2 * 768
    mlp = 512 * 768 + 768 + 2 * 768 + 768 * 768 + 768
    assert full_size().weights == 2 * embeddings + 18 * 7_087_872 + mlp
    assert math.isclose(full_size().flops / 512, 24.3e9, rel_tol=0.01)
