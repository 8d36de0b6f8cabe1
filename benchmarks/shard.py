"""Speed and memory of sharding HowTo100M's captions and features, with an estimate for all of HowTo100M.

    python -m benchmarks.shard --json

The data is generated: raw_caption.json with captions as from speech recognition (109 per video, 7 words each, each
repeating the end of the previous one), and 267 s of 512-d features per video. The vocabulary has 20,000 random words.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from mmpt_plugin.features.files import write_features
from mmpt_plugin.shards.make import make_shards

WHOLE_VIDEOS, CAPTIONS, SECONDS, WIDTH = 1_100_000, 109, 267, 512
VIDEOS_PER_SHARD = 512


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--videos", type=int, default=2048)
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_files(Path(folder), arguments.videos)
        with multiprocessing.get_context("spawn").Pool(1) as pool:
            result = pool.apply(measure, (Path(folder), arguments.videos))
    hours = WHOLE_VIDEOS / result["videos_per_s"] / 3600
    result["estimated_hours_for_howto100m"] = hours
    print(
        f"{result['videos_per_s']:.0f} videos/s and {result['captions_per_s']:,.0f} captions/s, "
        f"{result['peak_memory_bytes'] / 2**30:.2f} GiB at most with {VIDEOS_PER_SHARD} videos per shard; "
        f"{WHOLE_VIDEOS:,} videos would take {hours:.1f} hours"
    )
    if arguments.json:
        print(json.dumps(result))


def make_files(folder: Path, videos: int) -> None:
    rng = np.random.default_rng(0)
    words = ["".join(letters) for letters in rng.choice(list("abcdefghijklmnopqrstuvwxyz"), (20_000, 5))]
    (folder / "tokenizer").mkdir()
    vocabulary = dict.fromkeys(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *words])
    (folder / "tokenizer" / "vocab.txt").write_text("\n".join(vocabulary) + "\n")
    (folder / "features").mkdir()
    content = {}
    for number in range(videos):
        features = rng.standard_normal((SECONDS, WIDTH), dtype=np.float32).astype(np.float16)
        write_features(folder / "features" / f"v{number}.npy", features)
        starts = np.sort(rng.uniform(0, SECONDS, CAPTIONS)).round(2)
        spoken = rng.choice(words, CAPTIONS * 4 + 3).tolist()
        content[f"v{number}"] = {
            "start": starts.tolist(),
            "end": (starts + 4).tolist(),
            "text": [" ".join(spoken[4 * i : 4 * i + 7]) for i in range(CAPTIONS)],
        }
    (folder / "raw_caption.json").write_text(json.dumps(content))


def measure(folder: Path, videos: int) -> dict[str, Any]:
    start = time.perf_counter()
    report = make_shards(
        None,
        features=folder / "features",
        captions=folder / "raw_caption.json",
        tokenizer=str(folder / "tokenizer"),
        out=folder / "shards",
        videos_per_shard=VIDEOS_PER_SHARD,
    )
    seconds = time.perf_counter() - start
    return {
        "videos": report.videos,
        "captions": videos * CAPTIONS,
        "videos_per_s": videos / seconds,
        "captions_per_s": videos * CAPTIONS / seconds,
        "caption_bytes": (folder / "raw_caption.json").stat().st_size,
        "peak_memory_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
    }


if __name__ == "__main__":
    main()
