"""The formats: which seed is changed how, and which command then reads it."""

import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from benchmarks.hostile.seeds import ENCODER

Words = list[object]


@dataclass(frozen=True)
class Format:
    """A kind of file."""

    seed: str
    """The file or folder that each case gets a copy of, below the seeds."""
    files: Mapping[str, str]
    """The files of it (globs), one of which is changed in each case, and the kind of mutations (`mutations.KINDS`)."""
    words: Callable[[Path, Path], Words]
    """The command, from the folder of the seeds and the copy."""

    def copy(self, seeds: Path, folder: Path) -> Path:
        """A copy of the seed in a folder."""
        source, target = seeds / self.seed, folder / Path(self.seed).name
        if source.is_dir():
            shutil.copytree(source, target)
        else:
            shutil.copy(source, target)
        return target


def one_file(seed: str, kind: str, words: Callable[[Path, Path], Words]) -> Format:
    """A format whose seed is one file."""
    return Format(seed, {"": kind}, words)


def convert(seeds: Path, path: Path) -> Words:
    words: Words = ["convert", path, "--out", path.parent / "out"]
    if path.name == "released.pt":  # whose vocabulary is no tokenizer's
        return [*words, "--num-attention-heads", 2]
    return [*words, "--tokenizer", seeds / ("tokenizer" if path.name == "ours.pt" else "vocabulary")]


def embed_text(seeds: Path, path: Path) -> Words:
    return ["embed", path, "--text", seeds / "sentences.txt", "--out", path.parent / "out.safetensors"]


def shard(seeds: Path, *, features: Path, captions: Path, tokenizer: Path, out: Path) -> Words:
    listed = out.parent / "ids.txt"
    listed.write_text("v\n")
    words: Words = ["shard", "--features", features, "--captions", captions, "--tokenizer", tokenizer, "--out", out]
    return [*words, "--videos", listed] if not (features / "train_meta.pkl").is_file() else words


def shard_captions(seeds: Path, path: Path) -> Words:
    """A caption file of the video `v`; those of a folder of captions are named by their video."""
    captions = path.parent if path.stem == "v" else path
    own = {"features": seeds / "corpora" / "features", "tokenizer": seeds / "tokenizer", "out": path.parent / "out"}
    return shard(seeds, captions=captions, **own)


def shard_features(seeds: Path, path: Path) -> Words:
    captions = seeds / "captions" / "raw.json"
    return shard(seeds, features=path, captions=captions, tokenizer=seeds / "tokenizer", out=path.parent / "out")


def shard_tokenizer(seeds: Path, path: Path) -> Words:
    own = {"features": seeds / "corpora" / "features", "captions": seeds / "captions" / "raw.json"}
    return shard(seeds, tokenizer=path, out=path.parent / "out", **own)


def shard_original(seeds: Path, path: Path) -> Words:
    return shard(seeds, features=path, captions=path, tokenizer=path, out=path.parent / "out")


def doctor_shards(seeds: Path, path: Path) -> Words:
    data = [f"task.dataset.splits.train={path}", f"checkpoint.save_dir={path.parent / 'run'}"]
    return ["doctor", seeds / "yaml" / "training.yaml", *data]


def evaluate_frames(seeds: Path, path: Path) -> Words:
    data = {"annotations": seeds / "corpora" / "jsonl" / "a.jsonl", "videos": path, "tokenizer": seeds / "vocabulary"}
    given = [f"task.dataset.{key}={value}" for key, value in data.items()]
    checkpoint = f"checkpoint={seeds / 'checkpoints' / 'archive.pt'}"
    return ["evaluate", "clip_mean/evaluate", "task=toy_kitchen_clips", checkpoint, *given]


def evaluate(task: str, **options: str) -> Callable[[Path, Path], Words]:
    """A command that evaluates a task on an annotation file, or on a folder of them."""

    def words(seeds: Path, path: Path) -> Words:
        features = seeds / "corpora" / "features"
        annotations = next(one for one in path.iterdir() if one.is_dir() or one.stem == "a")
        data = {"annotations": annotations, "features": features, "tokenizer": seeds / "tokenizer"} | {
            key: value.format(path) for key, value in options.items()
        }
        given = [f"task.dataset.{key}={value}" for key, value in data.items()]
        return ["evaluate", "videoclip/zeroshot", f"task={task}", f"checkpoint={seeds / 'model'}", *given]

    return words


def cached(seeds: Path, path: Path) -> Words:
    return ["cache-frames", path, "--out", path.parent / "out", "--size", 32]


def extracted(seeds: Path, path: Path) -> Words:
    return ["extract", path, "--encoder", ENCODER, "--out", path.parent / "out"]


def extracted_with(seeds: Path, path: Path) -> Words:
    encoder = ENCODER.replace("s3d,", f"s3d, weights: {path},")
    return ["extract", seeds / "videos" / "v.mp4", "--encoder", encoder, "--out", path.parent / "out"]


def trained_further(seeds: Path, path: Path) -> Words:
    given = [f"checkpoint.restore_file={path}", f"checkpoint.save_dir={path.parent / 'run'}"]
    return ["train", seeds / "yaml" / "training.yaml", *given, "optimization.max_epoch=3"]


def searched(seeds: Path, path: Path) -> Words:
    return ["search", path, "chop the onion"]


def launched(seeds: Path, path: Path) -> Words:
    job = ["extract", seeds / "videos", "--encoder", "s3d", "--out", "out"]
    return ["launch", *job, "--profile", path, "--dry-run"]


def reported(seeds: Path, path: Path) -> Words:
    return ["report", path, seeds / "run", "--out", path.parent / "runs.html"]


def evaluated_task(seeds: Path, path: Path) -> Words:
    return ["evaluate", "videoclip/zeroshot", f"task={path}", f"checkpoint={seeds / 'model'}"]


VOCABULARY = {"tokenizer.json": "json", "tokenizer_config.json": "json"}
CORPORA: dict[str, tuple[str, dict[str, str], dict[str, str]]] = {
    "jsonl": ("toy_kitchen_clips", {"a.jsonl": "jsonl"}, {}),
    "msrvtt": ("msrvtt", {"a.csv": "text"}, {}),
    "msrvtt_json": ("msrvtt", {"a.json": "json"}, {}),
    "msrvtt_multiple_choice": ("msrvtt_qa", {"a.csv": "text"}, {}),
    "youcook2": ("youcook2", {"a.json": "json"}, {}),
    "didemo": ("didemo", {"a.json": "json"}, {}),
    "didemo_moments": ("didemo_moments", {"a.json": "json"}, {}),
    "msvd": ("msvd", {"a.csv": "text", "list.txt": "text"}, {"video_ids": "{}/list.txt"}),
    "msvd_pickle": ("msvd", {"a.pkl": "pickle"}, {"video_ids": "{}/list.txt"}),
    "vatex": ("vatex", {"a.json": "json"}, {"video_ids": "null"}),
    "lsmdc": ("lsmdc", {"a.csv": "text"}, {}),
    "activitynet": ("activitynet", {"a.json": "json"}, {}),
    "coin": ("coin", {"a.json": "json"}, {}),
    "crosstask": (
        "crosstask",
        dict.fromkeys(("r/tasks_primary.txt", "r/videos.csv", "r/videos_val.csv", "r/annotations/7_v.csv"), "text"),
        {"num_train": "1"},
    ),
    "hmdb51": ("hmdb51", {"a/brush_hair_test_split1.txt": "text"}, {}),
    "ucf101": ("ucf101", {"a/classInd.txt": "text", "a/testlist01.txt": "text"}, {}),
    "kinetics": ("kinetics", {"a.csv": "text"}, {}),
    "labelled_csv": ("kinetics", {"a.csv": "text"}, {"_name": "labelled_csv"}),
}
VIDEOS = ("v.mp4", "mkv.mkv", "avi.avi", "mov.mov", "webm.webm", "mpg.mpg", "flv.flv")

FORMATS: dict[str, Format] = {
    "checkpoint": one_file("checkpoints/ours.pt", "torch", convert),
    "released_checkpoint": one_file("checkpoints/released.pt", "torch", convert),
    "clip_archive": one_file("checkpoints/archive.pt", "archive", convert),
    "clip2video": one_file("checkpoints/clip2video.pt", "torch", convert),
    "clip4clip": one_file("checkpoints/clip4clip.pt", "torch", convert),
    "s3d_weights": one_file("checkpoints/s3d.pth", "torch", extracted_with),
    "training_checkpoint": one_file("run_of_training/checkpoint_last.pt", "torch", trained_further),
    "collection": Format(
        "collection",
        dict.fromkeys(
            (f"moments.lance/{name}" for name in ("data/*", "_versions/*.manifest", "_indices/*/*.lance")), "bytes"
        ),
        searched,
    ),
    "model_folder": Format("model", {"config.json": "json", "model.safetensors": "safetensors"}, embed_text),
    "bert_tokenizer": Format("tokenizer", VOCABULARY, shard_tokenizer),
    "bert_vocabulary": Format("kitchen/tokenizer", {"vocab.txt": "text"}, shard_tokenizer),
    "clip_vocabulary": Format("vocabulary", {"vocab.json": "json", "merges.txt": "text"}, shard_tokenizer),
    "features": Format("corpora/features", {"v.npy": "npy"}, shard_features),
    "vtt": one_file("captions/v.vtt", "text", shard_captions),
    "srt": one_file("captions/v.srt", "text", shard_captions),
    "caption_jsonl": one_file("captions/v.jsonl", "jsonl", shard_captions),
    "caption_lines": one_file("captions/all.jsonl", "jsonl", shard_captions),
    "howto100m_json": one_file("captions/raw.json", "json", shard_captions),
    "howto100m_pickle": one_file("captions/raw.pickle", "pickle", shard_captions),
    "shards": Format("shards", {"index.json": "json", "shard-00000.safetensors": "safetensors"}, doctor_shards),
    "original_shards": Format(
        "original",
        {"train_meta.pkl": "pickle", "train_0_data.npy": "npy", "train_0_starts.npy": "npy"}
        | {f"caption.bert-gold-dev.train_0.{name}.npy": "npy" for name in ("caps_ids_data", "caps_ids_starts")}
        | {f"caption.bert-gold-dev.train_0.{name}.npy": "npy" for name in ("startends_data", "startends_starts")},
        shard_original,
    ),
    "frame_cache": Format("frames", {"*.safetensors": "safetensors"}, evaluate_frames),
    "project": one_file("yaml/project.yaml", "yaml", lambda seeds, path: ["evaluate", path]),
    "training": one_file("yaml/training.yaml", "yaml", lambda seeds, path: ["doctor", path]),
    "task": one_file("yaml/task.yaml", "yaml", evaluated_task),
    "profile": one_file("yaml/profile.yaml", "yaml", launched),
    "run": Format("run", {"project.yaml": "yaml", "train.log": "text", "metrics.json": "json"}, reported),
    "run_page": Format(
        "run",
        {"metrics.json": "json"},
        lambda seeds, path: ["report", path, "--videos", seeds / "videos"],
    ),
    "video": Format("videos", dict.fromkeys(VIDEOS, "bytes"), cached),
    "video_extract": Format("videos", dict.fromkeys(VIDEOS, "bytes"), extracted),
} | {
    f"corpus_{name}": Format(f"corpora/{name}", files, evaluate(task, **options))
    for name, (task, files, options) in CORPORA.items()
}
