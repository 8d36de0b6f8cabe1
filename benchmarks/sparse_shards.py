"""Shards as large as HowTo100M's: headers, captions and bounds are correct, features are holes of sparse files."""

import json
from pathlib import Path

import numpy as np

TOKENIZER = {"name": "made", "cls_id": 2, "sep_id": 3, "pad_id": 0, "vocab_size": 1000}
VIDEOS, SECONDS, WIDTH, CAPTIONS, WORDS = 4096, 178, 512, 64, 7  # of a shard; a video; a second; a video; a caption


def make_sparse(folder: Path, gigabytes: int) -> None:
    from mmpt_plugin.shards.format import LAYOUT

    (folder / "shards").mkdir()
    rows, captions = VIDEOS * SECONDS, VIDEOS * CAPTIONS
    starts = np.tile(np.linspace(0, SECONDS - 3, CAPTIONS, dtype=np.float32), VIDEOS)
    arrays: dict[str, np.ndarray] = {
        "feature_offsets": np.arange(VIDEOS + 1) * SECONDS,
        "caption_times": np.stack([starts, starts + 3], axis=1),
        "caption_offsets": np.arange(VIDEOS + 1) * CAPTIONS,
        "token_counts": np.full(captions, WORDS, dtype=np.int32),
        "tokens": np.full(captions * WORDS, 9, dtype=np.int32),
    }
    shapes = {"features": [rows, WIDTH]} | {name: list(array.shape) for name, array in arrays.items()}
    kinds = {"float16": "F16", "float32": "F32", "int32": "I32", "int64": "I64"}
    header, places, end = {}, {}, 0
    for name, shape in sorted(shapes.items(), key=lambda item: item[0] == "features"):  # the features last
        size = int(np.prod(shape)) * np.dtype(LAYOUT[name][0]).itemsize
        header[name] = {"dtype": kinds[LAYOUT[name][0]], "shape": shape, "data_offsets": [end, end + size]}
        places[name], end = end, end + size
    about = json.dumps(header).encode()
    about += b" " * (-len(about) % 8)
    shards = []
    for number in range(max(1, gigabytes * 10**9 // (rows * WIDTH * 2))):
        path = folder / "shards" / f"shard-{number:05}.safetensors"
        with path.open("wb") as file:
            file.write(len(about).to_bytes(8, "little") + about)
            for name, array in arrays.items():
                file.seek(8 + len(about) + places[name])
                file.write(array.tobytes())
            file.truncate(8 + len(about) + end)
        ids = [video_id(number * VIDEOS + n) for n in range(VIDEOS)]
        shards.append({"file": path.name, "bytes": path.stat().st_size, "crc32": 0, "video_ids": ids})
    index = {"version": 1, "feature_dim": WIDTH, "encoder": "made", "tokenizer": TOKENIZER, "shards": shards}
    (folder / "shards" / "index.json").write_text(json.dumps(index))


def video_id(number: int) -> str:
    return f"v{number:010}"
