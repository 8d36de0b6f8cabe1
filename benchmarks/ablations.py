"""Ablations of the paper's two ideas on the toy kitchen: the demo's project and its variants, over several seeds.

    python -m benchmarks.ablations --seeds 5 --json
    python -m benchmarks.ablations --seeds 5 --only covering "reused embeddings"

Run `make demo` first: it creates data/toy_kitchen. Every run is an `mmpt train` with one thread, followed by an
evaluation on the held-out clips; one run per core at a time.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import mean, stdev

PROJECTS = {
    "VideoCLIP": "videoclip/toy_kitchen",
    "aligned clips": "videoclip/ablations/toy_kitchen_aligned",
    "uniform batches": "videoclip/ablations/toy_kitchen_uniform",
    "covering": "videoclip/ablations/toy_kitchen_cover",
    "reused embeddings": "videoclip/ablations/toy_kitchen_reuse",
}
METRICS = ("t2v_recall@1", "t2v_recall@5", "t2v_recall@10", "t2v_median_rank", "v2t_recall@10")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    parser.add_argument("--only", nargs="+", choices=PROJECTS, default=list(PROJECTS), metavar="NAME")
    arguments = parser.parse_args()
    jobs = [(name, seed) for seed in range(1, arguments.seeds + 1) for name in arguments.only]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(os.cpu_count()) as pool:
        results = list(pool.map(lambda job: run(Path(folder), *job), jobs))
    table = {}
    for name in arguments.only:
        mine = [result for (job, _), result in zip(jobs, results, strict=True) if job == name]
        table[name] = {key: spread([result["metrics"][key] for result in mine]) for key in METRICS}
        print(f"{name:17}", "  ".join(f"{key} {m:.3f} ± {s:.3f}" for key, (m, s) in table[name].items()))
    chance = {key: results[0]["chance"][key] for key in METRICS}
    print(f"{'chance':17}", "  ".join(f"{key} {value:.3f}" for key, value in chance.items()))
    if arguments.json:
        print(json.dumps({"seeds": arguments.seeds, "mean_and_stdev": table, "chance": chance}))


def run(folder: Path, name: str, seed: int) -> dict[str, dict[str, float]]:
    """Train one project with one seed, and evaluate it."""
    save_dir = folder / f"{name.replace(' ', '_')}_{seed}"
    mmpt = [sys.executable, "-m", "mmpt_plugin.cli"]
    train = [
        "train", PROJECTS[name], f"checkpoint.save_dir={save_dir}", f"common.log_file={save_dir}.log",
        f"common.seed={seed}", "dataset.num_workers=0",
    ]  # fmt: skip
    evaluate = [
        "evaluate", "videoclip/zeroshot", "task=toy_kitchen_clips", f"checkpoint={save_dir}/checkpoint_last.pt",
        "--json", str(save_dir / "metrics.json"),
    ]  # fmt: skip
    for command in (train, evaluate):
        done = subprocess.run(
            [*mmpt, *command], env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise RuntimeError(f"{' '.join(command)}: {done.stderr[-2000:]}")
    result: dict[str, dict[str, float]] = json.loads((save_dir / "metrics.json").read_text())
    print(f"{name}, seed {seed}: t2v_recall@10 {result['metrics']['t2v_recall@10']:.3f}", flush=True)
    return result


def spread(values: list[float]) -> tuple[float, float]:
    return mean(values), stdev(values) if len(values) > 1 else 0.0


if __name__ == "__main__":
    main()
