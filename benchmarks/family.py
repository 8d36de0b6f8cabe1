"""All models and losses on the toy kitchen, with the same features, initialization and updates, over several seeds.

    python -m benchmarks.family --seeds 3 --json

Run `make demo` first: it creates data/toy_kitchen. Its features, of width 1280, are reduced to their first 128
principal components, so that a transformer on them is as fast as the other models. CLIP's towers start from random
weights, and the vision tower is not used. Every run is a separate process with one thread: an `mmpt train`, whose time
and peak memory (of the whole process, including torch) are measured, then an evaluation on the held-out clips.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.ablations import spread
from mmpt_plugin.shards.make import make_shards

DATA = Path("data/toy_kitchen")
WIDTH = 128
MODELS = ("videoclip", "clip_mean", "clip_lstm", "clip_transformer", "clip2video", "videoclip_vit")
SHIFTS = (5, 10, 20)  # seconds
COLUMNS = ("t2v_recall@1", "t2v_recall@10", "v2t_recall@10", "seconds", "megabytes")

# The code of a process; its argument is JSON: the training's and the evaluation's arguments, and the output file.
RUN = """
import json, resource, sys, time
from pathlib import Path
from mmpt_plugin.cli import main
train, evaluate, out = json.loads(sys.argv[1])
begin = time.monotonic()
assert main(train) == 0
took = {"seconds": time.monotonic() - begin, "megabytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024}
assert main(evaluate) == 0
Path(out).write_text(json.dumps(took))
"""


@dataclass(frozen=True)
class Setting:
    model: str
    criterion: str
    shift: int = 0
    """Seconds by which captions are delayed."""
    warm: bool = False
    """Whether training starts from the weights of `START` with the same seed."""

    def __str__(self) -> str:
        late = f" +{self.shift} s" if self.shift else ""
        return f"{self.model} {self.criterion}{late}{' warm' if self.warm else ''}"


START = Setting("videoclip_vit", "nce")
LOSSES = ("nce", "mil_nce", "best_fit_nce")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else None)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=7, help="of 15 updates (default 7)")
    parser.add_argument("--models", action="store_true", help="only every model with nce, without the other losses")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    parts = (
        [list(model_settings())] if arguments.models else [[*model_settings(), *cold_settings()], [*warm_settings()]]
    )
    results: dict[Setting, list[dict[str, float]]] = {setting: [] for part in parts for setting in part}
    with tempfile.TemporaryDirectory() as name, ThreadPoolExecutor(os.cpu_count()) as pool:
        folder = Path(name)
        narrow_features(folder)
        for settings in parts:
            jobs = [(setting, seed) for seed in range(1, arguments.seeds + 1) for setting in settings]
            for (setting, _), result in zip(
                jobs, pool.map(lambda job: run(folder, *job, epochs=arguments.epochs), jobs), strict=True
            ):
                results[setting].append(result)
    table = {}
    for setting, mine in results.items():
        table[str(setting)] = {key: spread([result[key] for result in mine]) for key in COLUMNS}
        cells = "  ".join(f"{key} {m:.3g} ± {s:.2g}" for key, (m, s) in table[str(setting)].items())
        print(f"{setting!s:32} {cells}")
    if arguments.json:
        print(json.dumps({"seeds": arguments.seeds, "updates": 15 * arguments.epochs, "mean_and_stdev": table}))


def model_settings() -> Iterator[Setting]:
    """Every model with nce."""
    yield from (Setting(model, "nce") for model in MODELS)


def cold_settings() -> Iterator[Setting]:
    """The other losses with one model; three losses with delayed captions."""
    yield from (Setting("videoclip_vit", criterion) for criterion in ("mil_nce", "best_fit_nce", "sigmoid"))
    yield from (Setting("videoclip_vit", criterion, shift) for shift in SHIFTS for criterion in LOSSES)


def warm_settings() -> Iterator[Setting]:
    """Delayed captions for a model that is already trained, as a pre-trained CLIP is."""
    yield from (Setting("videoclip_vit", criterion, shift, warm=True) for shift in SHIFTS for criterion in LOSSES)


def narrow_features(folder: Path) -> None:
    """Project the features of all videos to the principal components of the training videos; write training shards."""
    videos = (DATA / "train.txt").read_text().split()
    rows = np.concatenate([np.load(DATA / "features" / f"{video}.npy").astype(np.float32) for video in videos])
    center = rows.mean(axis=0)
    variances, axes = np.linalg.eigh(np.cov((rows - center).T))
    axes = axes[:, ::-1][:, :WIDTH] / np.sqrt(variances[-1])
    (folder / "features").mkdir()
    for path in (DATA / "features").glob("*.npy"):
        np.save(folder / "features" / path.name, ((np.load(path) - center) @ axes).astype(np.float16))
    make_shards(
        videos,
        features=folder / "features",
        captions=DATA / "captions",
        tokenizer=str(DATA / "tokenizer"),
        out=folder / "shards",
    )


def run(folder: Path, setting: Setting, seed: int, *, epochs: int) -> dict[str, float]:
    save_dir = folder_of(folder, setting, seed)
    train = [
        "train", f"{setting.model}/toy_kitchen", f"checkpoint.save_dir={save_dir}", f"common.log_file={save_dir}.log",
        f"common.seed={seed}", "dataset.num_workers=0", f"optimization.max_epoch={epochs}", "optimization.lr=1e-3",
        f"criterion._name={setting.criterion}", "sampler._name=uniform",
        f"task.dataset.splits.train={folder}/shards", "task.dataset.frames=null", "task.dataset.pairs_per_video=8",
        f"task.dataset.caption_shift={setting.shift}", "model.max_video_len=32",
    ]  # fmt: skip
    if setting.warm:
        train += [f"checkpoint.finetune_from_model={folder_of(folder, START, seed)}/checkpoint_last.pt"]
    if setting.model == "videoclip":
        train += [f"model.feature_dim={WIDTH}"]
    if setting.criterion == "sigmoid":
        train += ["criterion.temperature=0.1", "criterion.learn_temperature=null"]
    evaluate = [
        "evaluate", "videoclip/zeroshot", "task=toy_kitchen_clips", f"checkpoint={save_dir}/checkpoint_last.pt",
        f"task.dataset.features={folder}/features", "--json", str(save_dir / "metrics.json"),
    ]  # fmt: skip
    done = subprocess.run(
        [sys.executable, "-c", RUN, json.dumps([train, evaluate, str(save_dir / "took.json")])],
        env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode:
        raise RuntimeError(f"{setting}: {done.stderr[-2000:]}")
    result: dict[str, float] = json.loads((save_dir / "metrics.json").read_text())["metrics"]
    result |= json.loads((save_dir / "took.json").read_text())
    print(f"{setting}, seed {seed}: t2v_recall@10 {result['t2v_recall@10']:.3f}", flush=True)
    return result


def folder_of(folder: Path, setting: Setting, seed: int) -> Path:
    return folder / f"{setting}-{seed}".replace(" ", "_")


if __name__ == "__main__":
    main()
