"""Ablations of the paper's two ideas on generated data: the demo's project and its variants, over several seeds.

    python -m benchmarks.ablations --seeds 5 --json
    python -m benchmarks.ablations --seeds 5 --only "uniform batches" "aligned clips"

Run `make demo` first: it creates data/toy_kitchen. Every run is an `mmpt train` with one thread, followed by an
evaluation on the held-out clips; one run per core at a time. `--folder` is the folder that contains data/, for another
data set, and `--set` has overrides that all runs share:

    python -m benchmarks.large_kitchen --out large/data/toy_kitchen
    python -m benchmarks.ablations --folder large \\
        --set model.feature_dim=128 model.vocab_size=517 optimization.max_epoch=4
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from statistics import mean, stdev

from matplotlib.figure import Figure
from matplotlib.ticker import PercentFormatter

PROJECT = "videoclip/toy_kitchen"
VARIANTS = {
    "demo": (),
    "uniform batches": ("sampler._name=uniform",),
    "aligned clips": ("task.dataset.overlap=false",),
    "some videos missed": ("sampler.cover=false",),
    "inner product": ("sampler.cover=false", "sampler.distance=inner_product"),
    "reused embeddings": ("task.reuse_training_embeddings=true",),
    "no unit vectors": ("model.normalize=false", "criterion.temperature=1"),
    "long clips": ("task.dataset.max_text_len=61", "task.dataset.max_video_len=32"),
}
METRICS = (
    "t2v_recall@1", "t2v_recall@5", "t2v_recall@10", "t2v_meaning_recall@1", "t2v_median_rank", "v2t_recall@1",
    "v2t_recall@10",
)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    parser.add_argument("--only", nargs="+", choices=VARIANTS, default=list(VARIANTS), metavar="NAME")
    parser.add_argument("--folder", type=Path, default=Path(), help="contains data/toy_kitchen (default: this folder)")
    parser.add_argument("--figure", type=Path, help="draw the recall@1 of every run in this PNG")
    parser.add_argument("--set", nargs="+", default=[], metavar="KEY=VALUE", help="overrides of all runs")
    arguments = parser.parse_args()
    jobs = [(name, seed) for seed in range(1, arguments.seeds + 1) for name in arguments.only]
    with tempfile.TemporaryDirectory() as out, ThreadPoolExecutor(os.cpu_count()) as pool:
        one = partial(run, Path(out), arguments.folder, arguments.set)
        results = list(pool.map(lambda job: one(*job), jobs))
    table = {}
    for name in arguments.only:
        mine = [result["metrics"] for (job, _), result in zip(jobs, results, strict=True) if job == name]
        table[name] = {key: [metrics[key] for metrics in mine] for key in METRICS}
        spreads = ((key, *spread(values)) for key, values in table[name].items())
        print(f"{name:18}", "  ".join(f"{key} {m:.3f} ± {s:.3f}" for key, m, s in spreads))
    chance = {key: results[0]["chance"][key] for key in METRICS}
    print(f"{'chance':18}", "  ".join(f"{key} {value:.3f}" for key, value in chance.items()))
    if arguments.json:
        print(json.dumps({"seeds": arguments.seeds, "metrics": table, "chance": chance}))
    if arguments.figure:
        draw(arguments.figure, table)


def run(out: Path, folder: Path, shared: list[str], name: str, seed: int) -> dict[str, dict[str, float]]:
    """Train one variant with one seed, and evaluate it."""
    save_dir = out / f"{name.replace(' ', '_')}_{seed}"
    mmpt = [sys.executable, "-m", "mmpt_plugin.cli"]
    train = [
        "train", PROJECT, f"checkpoint.save_dir={save_dir}", f"common.log_file={save_dir}.log",
        f"common.seed={seed}", "dataset.num_workers=0", *shared, *VARIANTS[name],
    ]  # fmt: skip
    evaluate = [
        "evaluate", "videoclip/zeroshot", "task=toy_kitchen_clips", f"checkpoint={save_dir}/checkpoint_last.pt",
        "--json", str(save_dir / "metrics.json"),
    ]  # fmt: skip
    for command in (train, evaluate):
        done = subprocess.run(
            [*mmpt, *command],
            cwd=folder, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    result: dict[str, dict[str, float]] = json.loads((save_dir / "metrics.json").read_text())
    print(f"{name}, seed {seed}: t2v_recall@10 {result['metrics']['t2v_recall@10']:.3f}", flush=True)
    return result


def draw(path: Path, runs: dict[str, dict[str, list[float]]]) -> None:
    """The recall@1 of both directions: a dot per run and a line at the mean, one row per variant."""
    figure = Figure(figsize=(8, 0.8 + 0.3 * len(runs)), layout="constrained")
    for axes, key in zip(figure.subplots(1, 2, sharey=True), ("t2v_recall@1", "v2t_recall@1"), strict=True):
        for row, values in enumerate(runs.values()):
            axes.plot(values[key], [row] * len(values[key]), "o", color="tab:blue", alpha=0.5)
            axes.plot([mean(values[key])], [row], "|", color="black", markersize=14)
        axes.set_yticks(range(len(runs)), list(runs))
        axes.set_xlabel(key)
        axes.xaxis.set_major_formatter(PercentFormatter(1, decimals=0))
        axes.grid(axis="x", alpha=0.3)
    axes.set_ylim(len(runs) - 0.5, -0.5)
    figure.savefig(path, dpi=150)


def spread(values: list[float]) -> tuple[float, float]:
    return mean(values), stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
