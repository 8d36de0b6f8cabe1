"""Hand-made attacks: code in every place where it could hide, bombs, paths that lead out of a folder, text that a
terminal, a page or a shell would obey."""

import io
import json
import os
import pickle
import shutil
import subprocess
import zipfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import av
import numpy as np
import torch
import yaml

from benchmarks.hostile import sandbox
from benchmarks.hostile.cases import CANARY, SECRET, Result, faults_of
from benchmarks.hostile.formats import FORMATS, Words, convert, embed_text, shard_captions, shard_features
from benchmarks.hostile.seeds import ENCODER

SCRIPT = "<script>document.title='canary'</script>"
IMAGE = '"><img src=x onerror=alert(1)>'
ESCAPE = "\x1b]0;owned\x07\x1b[2J\x1b[31m"
SHELL = "$(touch canary)`touch canary`;touch canary;'\"&|>canary"


@dataclass(frozen=True)
class Attack:
    """A command over hostile files."""

    words: Words
    says: str = ""
    """What the error names; an attack without it may also have no effect."""
    environment: tuple[str, str] = ("", "")


Make = Callable[[Path, Path], Attack | list[str]]
ATTACKS: dict[str, Make] = {}
"""Name -> what makes the files, from the folder of the seeds and an empty folder: a command, or the faults found."""


def attack(make: Make) -> Make:
    ATTACKS[make.__name__] = make
    return make


class Code:
    """A pickle of it runs a command of the shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.folder}/{CANARY}",)


def copied(name: str, seeds: Path, folder: Path) -> Path:
    return FORMATS[name].copy(seeds, folder)


# Pickles.


@attack
def pickle_as_checkpoint(seeds: Path, folder: Path) -> Attack:
    torch.save({"model": {"x": torch.zeros(2)}, "extra": Code(folder)}, folder / "ours.pt")
    return Attack(convert(seeds, folder / "ours.pt"), "ours.pt is not read")


@attack
def pickle_as_old_checkpoint(seeds: Path, folder: Path) -> Attack:
    torch.save({"model": Code(folder)}, folder / "ours.pt", _use_new_zipfile_serialization=False)
    return Attack(convert(seeds, folder / "ours.pt"), "ours.pt")


@attack
def pickle_in_a_torchscript_archive(seeds: Path, folder: Path) -> Attack:
    with zipfile.ZipFile(seeds / "checkpoints" / "archive.pt") as source:
        members = {name: source.read(name) for name in source.namelist()}
    with zipfile.ZipFile(folder / "archive.pt", "w") as target:
        for name, content in members.items():
            hidden = name.endswith(("data.pkl", "constants.pkl"))
            target.writestr(name, pickle.dumps(Code(folder), protocol=2) if hidden else content)
    return Attack(convert(seeds, folder / "archive.pt"), "archive.pt")


@attack
def pickle_as_weights_of_a_model_folder(seeds: Path, folder: Path) -> Attack:
    path = copied("model_folder", seeds, folder)
    for name in ("model.safetensors", "pytorch_model.bin", "training_args.bin"):
        torch.save({"x": Code(folder)}, path / name)
    return Attack(embed_text(seeds, path), str(path))


@attack
def pickle_as_encoder_weights(seeds: Path, folder: Path) -> Attack:
    torch.save({"x": Code(folder)}, folder / "s3d.pth")
    encoder = f"{{_name: s3d, weights: {folder / 's3d.pth'}}}"
    return Attack(["extract", seeds / "videos", "--encoder", encoder, "--out", folder / "out"], "s3d.pth is not read")


@attack
def pickle_as_clip_folder(seeds: Path, folder: Path) -> Attack:
    from transformers import CLIPConfig

    CLIPConfig().save_pretrained(folder / "clip")
    torch.save({"x": Code(folder)}, folder / "clip" / "pytorch_model.bin")
    encoder = f"{{_name: clip, weights: {folder / 'clip'}}}"
    return Attack(["extract", seeds / "videos", "--encoder", encoder, "--out", folder / "out"], "clip")


@attack
def pickle_as_bert_folder(seeds: Path, folder: Path) -> Attack:
    (folder / "bert").mkdir()
    about = {"model_type": "bert", "hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 32}
    (folder / "bert" / "config.json").write_text(json.dumps(about))
    torch.save({"x": Code(folder)}, folder / "bert" / "pytorch_model.bin")
    return Attack(["doctor", seeds / "yaml" / "training.yaml", f"model.bert={folder / 'bert'}"], "bert")


@attack
def pickle_as_checkpoint_to_train_further(seeds: Path, folder: Path) -> Attack:
    torch.save({"model": {}, "x": Code(folder)}, folder / "c.pt")
    return Attack(
        ["doctor", seeds / "yaml" / "training.yaml", f"model.pretrained={folder / 'c.pt'}"], "c.pt is not read"
    )


@attack
def pickle_as_last_checkpoint_of_a_run(seeds: Path, folder: Path) -> Attack:
    (folder / "run").mkdir()
    torch.save({"model": {}, "x": Code(folder)}, folder / "run" / "checkpoint_last.pt")
    shutil.copy(seeds / "run" / "project.yaml", folder / "run")
    return Attack(["doctor", seeds / "yaml" / "training.yaml", f"checkpoint.save_dir={folder / 'run'}"])


@attack
def pickle_as_captions(seeds: Path, folder: Path) -> Attack:
    (folder / "raw.pickle").write_bytes(pickle.dumps({"v": Code(folder)}))
    return Attack(shard_captions(seeds, folder / "raw.pickle"), r"raw.pickle is not a pickle of plain")


@attack
def pickle_as_msvd(seeds: Path, folder: Path) -> Attack:
    path = copied("corpus_msvd_pickle", seeds, folder)
    (path / "a.pkl").write_bytes(pickle.dumps({"x_1_9": Code(folder)}))
    return Attack(FORMATS["corpus_msvd_pickle"].words(seeds, path), "a.pkl is not a pickle of plain")


@attack
def pickle_as_original_shards(seeds: Path, folder: Path) -> Attack:
    path = copied("original_shards", seeds, folder)
    (path / "train_meta.pkl").write_bytes(pickle.dumps({0: Code(folder)}))
    return Attack(FORMATS["original_shards"].words(seeds, path), "train_meta.pkl is not a pickle of plain")


@attack
def objects_as_features(seeds: Path, folder: Path) -> Attack:
    path = copied("features", seeds, folder)
    np.save(path / "v.npy", np.array([[Code(folder)]], dtype=object), allow_pickle=True)
    return Attack(shard_features(seeds, path), "v.npy can't be read")


@attack
def pickle_as_features(seeds: Path, folder: Path) -> Attack:
    path = copied("features", seeds, folder)
    (path / "v.npy").write_bytes(pickle.dumps(Code(folder)))
    return Attack(shard_features(seeds, path), "v.npy can't be read")


@attack
def objects_as_archive_of_features(seeds: Path, folder: Path) -> Attack:
    path, buffer = copied("features", seeds, folder), io.BytesIO()
    np.savez(buffer, x=np.array([Code(folder)], dtype=object))
    (path / "v.npy").write_bytes(buffer.getvalue())
    return Attack(shard_features(seeds, path), "v.npy can't be read")


@attack
def objects_as_original_arrays(seeds: Path, folder: Path) -> Attack:
    path = copied("original_shards", seeds, folder)
    np.save(path / "train_0_data.npy", np.array([Code(folder)], dtype=object), allow_pickle=True)
    return Attack(FORMATS["original_shards"].words(seeds, path), "train_0_data.npy can't be read")


@attack
def pickle_as_result_of_a_job(seeds: Path, folder: Path) -> Attack:
    logs = folder / "runs" / "r" / "slurm"
    logs.mkdir(parents=True)
    (logs / "1_0_result.pkl").write_bytes(pickle.dumps(Code(folder)))
    about = {"folder": str(logs.parent), "job_id": "1", "executor": "local", "tasks": 1, "logs": str(logs), "words": []}
    (logs.parent / "job.json").write_text(json.dumps(about))
    return Attack(["jobs", folder / "runs"], "1_0_result.pkl is not a pickle of plain")


@attack
def code_beside_a_tokenizer(seeds: Path, folder: Path) -> Attack:
    path = copied("bert_tokenizer", seeds, folder)
    about = json.loads((path / "tokenizer_config.json").read_text())
    about |= {"tokenizer_class": "Evil", "auto_map": {"AutoTokenizer": ["evil.Evil", "evil.Evil"]}}
    (path / "tokenizer_config.json").write_text(json.dumps(about))
    (path / "evil.py").write_text(f"open({str(folder / CANARY)!r}, 'w')\nclass Evil: pass\n")
    return Attack(FORMATS["bert_tokenizer"].words(seeds, path))


# YAML, Hydra and OmegaConf.


def in_yaml(seeds: Path, folder: Path, name: str, text: str) -> Attack:
    """A text at the end of a project, task, profile or run."""
    path = copied(name, seeds, folder)
    file = path / "project.yaml" if path.is_dir() else path
    file.write_text(file.read_text() + text)
    return Attack(FORMATS[name].words(seeds, path))


def yaml_attacks() -> Iterator[tuple[str, str, str]]:
    tag = "\nx: !!python/object/apply:os.system ['touch canary']\n"
    target = "\nx: {_target_: os.system, command: 'touch canary'}\n"
    for name in ("project", "training", "task", "profile", "run"):
        yield f"python_object_in_{name}", name, tag
        yield f"python_name_in_{name}", name, tag.replace("object/apply:os.system", "name:os.system")
        yield f"target_in_{name}", name, target
        yield f"aliases_that_explode_in_{name}", name, explosion()
        yield f"depth_in_{name}", name, f"\nx: {'[' * 5000}{']' * 5000}\n"
        yield f"million_lines_in_{name}", name, "".join(f"\nx{i}: 1" for i in range(200_000))
        yield f"secret_in_{name}", name, "\nx: ${oc.env:MMPT_TEST_SECRET}\n"
    yield "secret_in_test_set", "task", "\ntest_set: ${oc.env:MMPT_TEST_SECRET}\n"
    yield "secret_by_a_made_up_resolver", "task", "\na: oc.env\ntest_set: '${${a}:MMPT_TEST_SECRET}'\n"
    yield "secret_in_partition", "profile", "\npartition: ${oc.env:MMPT_TEST_SECRET}\n"
    yield "target_as_name", "task", "\n_name: os.system\n"
    yield "module_in_search_path", "project", "\nhydra: {searchpath: ['pkg://antigravity', 'pkg://canary_module']}\n"


def explosion() -> str:
    """Each line has the one before nine times: 9 to the power of 12 values."""
    lines = [f"\na0: &a0 [{', '.join('x' * 9)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 9)}]" for i in range(1, 13)]
    return "\n".join(lines) + "\n"


def add_yaml_attacks() -> None:
    for title, name, text in yaml_attacks():

        def make(seeds: Path, folder: Path, name: str = name, text: str = text) -> Attack:
            made = in_yaml(seeds, folder, name, text)
            return Attack(made.words, environment=("MMPT_TEST_SECRET", SECRET))

        ATTACKS[title] = make


add_yaml_attacks()


@attack
def user_directory_of_a_project(seeds: Path, folder: Path) -> Attack:
    (folder / "evil.py").write_text(f"open({str(folder / CANARY)!r}, 'w')\n")
    text = f"\ncommon: {{user_dir: {folder / 'evil.py'}}}\n"
    return Attack(
        in_yaml(seeds, folder, "training", text).words, "training.yaml' would run the code in common.user_dir"
    )


@attack
def user_directory_of_a_checkpoint(seeds: Path, folder: Path) -> Attack:
    (folder / "evil.py").write_text(f"open({str(folder / CANARY)!r}, 'w')\n")
    content = torch.load(seeds / "checkpoints" / "ours.pt", weights_only=False)  # of our own making
    content["cfg"]["common"] = {"user_dir": str(folder / "evil.py")}
    content["cfg"]["model"] = {"_name": "evil"}
    torch.save(content, folder / "ours.pt")
    return Attack(convert(seeds, folder / "ours.pt"), "ours.pt contains a model 'evil'")


@attack
def python_object_as_encoder(seeds: Path, folder: Path) -> Attack:
    encoder = "!!python/object/apply:os.system ['touch canary']"
    return Attack(["extract", seeds / "videos", "--encoder", encoder, "--out", folder / "out"])


@attack
def python_object_in_a_checkpoint(seeds: Path, folder: Path) -> Attack:
    content = torch.load(seeds / "checkpoints" / "ours.pt", weights_only=False)  # of our own making
    content["cfg"]["model"]["encoder"] = "!!python/object/apply:os.system ['touch canary']"
    content["cfg"]["model"]["frames"] = "!!python/object/apply:os.system ['touch canary']"
    torch.save(content, folder / "ours.pt")
    return Attack(convert(seeds, folder / "ours.pt"))


# Paths.


@attack
def shard_outside_of_its_folder(seeds: Path, folder: Path) -> Attack:
    path = copied("shards", seeds, folder)
    shutil.move(path / "shard-00000.safetensors", folder / "outside.safetensors")
    text = (path / "index.json").read_text().replace("shard-00000.safetensors", "../outside.safetensors")
    (path / "index.json").write_text(text)
    return Attack(FORMATS["shards"].words(seeds, path), "'../outside.safetensors' leads out of")


@attack
def absolute_shard(seeds: Path, folder: Path) -> Attack:
    path = copied("shards", seeds, folder)
    text = (path / "index.json").read_text().replace("shard-00000.safetensors", "/etc/passwd")
    (path / "index.json").write_text(text)
    return Attack(FORMATS["shards"].words(seeds, path), "'/etc/passwd' leads out of")


@attack
def video_id_outside_of_the_features(seeds: Path, folder: Path) -> Attack:
    path = copied("corpus_jsonl", seeds, folder)
    line = {"video_id": "../features/v", "start": 0, "end": 4, "caption": "chop"}
    (path / "a.jsonl").write_text(json.dumps(line))
    return Attack(FORMATS["corpus_jsonl"].words(seeds, path), "a.jsonl: '../features/v.npy' leads out of")


@attack
def video_id_outside_of_the_captions(seeds: Path, folder: Path) -> Attack:
    shutil.copytree(seeds / "captions", folder / "captions")
    shutil.copytree(seeds / "corpora" / "features", folder / "features")
    (folder / "secret.vtt").write_text("WEBVTT\n\n00:01.000 --> 00:02.000\nsecret\n")
    (folder / "ids.txt").write_text("../secret\n")
    words: Words = ["shard", "--features", folder / "features", "--captions", folder / "captions"]
    words += ["--tokenizer", seeds / "tokenizer", "--out", folder / "out", "--videos", folder / "ids.txt"]
    return Attack(words, "'../secret.npy' leads out of")


@attack
def output_that_is_a_link(seeds: Path, folder: Path) -> list[str]:
    """A link in the output folder is replaced; what it leads to stays as it is."""
    (folder / "precious").write_text("precious")
    (folder / "out").mkdir()
    (folder / "out" / "v.npy").symlink_to(folder / "precious")
    (folder / "out" / "v.json").symlink_to(folder / "precious")
    words = ["extract", seeds / "videos" / "v.mp4", "--encoder", ENCODER, "--out", folder / "out"]
    outcome = sandbox.command(words, folder)
    changed = (folder / "precious").read_text() != "precious"
    return faults_of(outcome, folder) + (["canaries"] if changed else [])


@attack
def links_in_a_circle(seeds: Path, folder: Path) -> Attack:
    (folder / "videos").mkdir()
    (folder / "videos" / "a").symlink_to(folder / "videos")
    (folder / "videos" / "b.mp4").symlink_to(folder / "videos" / "b.mp4")
    (folder / "videos" / "c.mp4").symlink_to("/etc/shadow")
    return Attack(["cache-frames", folder / "videos", "--out", folder / "out", "--size", 32], "c.mp4")


# Bombs.


@attack
def compressed_checkpoint(seeds: Path, folder: Path) -> Attack:
    with zipfile.ZipFile(folder / "ours.pt", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("ours/data.pkl", bytes(10))
        with archive.open("ours/data/0", "w", force_zip64=True) as member:
            for _ in range(300):
                member.write(bytes(10**7))
    return Attack(convert(seeds, folder / "ours.pt"), "ours.pt is damaged.*compressed")


@attack
def checkpoint_of_equal_numbers(seeds: Path, folder: Path) -> Attack:
    torch.save({"model": {"x": torch.zeros(1).half().expand(2**22, 2**10)}}, folder / "ours.pt")
    return Attack(convert(seeds, folder / "ours.pt"), "x is .* but the file has fewer numbers")


@attack
def model_of_a_billion_weights(seeds: Path, folder: Path) -> Attack:
    path = copied("model_folder", seeds, folder)
    about = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(about | {"vocab_size": 10**9, "max_position_embeddings": 10**9}))
    return Attack(embed_text(seeds, path))


@attack
def model_of_a_million_layers(seeds: Path, folder: Path) -> Attack:
    path = copied("model_folder", seeds, folder)
    about = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps(about | {"num_text_layers": 10**6}))
    return Attack(embed_text(seeds, path))


@attack
def features_of_petabytes(seeds: Path, folder: Path) -> Attack:
    path = copied("features", seeds, folder)
    header = f"{{'descr': '<f2', 'fortran_order': False, 'shape': ({2**40}, 512), }}".ljust(117) + "\n"
    (path / "v.npy").write_bytes(b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode())
    return Attack(shard_features(seeds, path), "v.npy can't be read")


@attack
def picture_of_gigabytes_in_a_frame_cache(seeds: Path, folder: Path) -> Attack:
    import zlib

    from PIL import Image
    from safetensors import safe_open
    from safetensors.numpy import load_file, save_file

    path = copied("frame_cache", seeds, folder)
    (file,) = path.glob("*.safetensors")
    with safe_open(file, framework="np") as source:
        about = source.metadata()
    arrays, buffer = load_file(file), io.BytesIO()
    Image.new("L", (12_000, 12_000)).save(buffer, "JPEG", quality=1)
    bomb = np.frombuffer(buffer.getvalue(), np.uint8)
    count = len(arrays["frame_crc32"])
    arrays["jpegs"] = np.tile(bomb, count)
    arrays["frame_offsets"] = np.arange(count + 1) * len(bomb)
    arrays["frame_crc32"] = np.full(count, zlib.crc32(bomb.tobytes()), arrays["frame_crc32"].dtype)
    save_file(arrays, file, about)
    return Attack(FORMATS["frame_cache"].words(seeds, path), "has 12000 x 12000 pixels, expected 24 x 24")


def video(folder: Path, *, size: tuple[int, int], times: Sequence[int], rate: int = 1000) -> Path:
    """A black video in Matroska with frames at these times, in thousandths of a second."""
    path = folder / "bomb.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mjpeg", rate=rate)
        stream.width, stream.height, stream.pix_fmt = *size, "yuvj420p"
        stream.thread_count = 1
        for time in times:
            frame = av.VideoFrame(*size, "yuvj420p")
            frame.pts, frame.time_base = time, Fraction(1, 1000)
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path


def seen(path: Path) -> Attack:
    """The frames of a video are cached."""
    return Attack(["cache-frames", path, "--out", path.parent / "out", "--size", 32], f"{path.name} ")


@attack
def frame_of_a_gigapixel(seeds: Path, folder: Path) -> Attack:
    return seen(video(folder, size=(16_000, 8_000), times=[0, 500]))


@attack
def frame_that_is_a_line(seeds: Path, folder: Path) -> Attack:
    return seen(video(folder, size=(2, 16_000), times=[0, 500]))


@attack
def frame_without_pixels(seeds: Path, folder: Path) -> Attack:
    return Attack(seen(patched(seeds, folder, b"avc1", 28, bytes(4))).words)


@attack
def frame_that_is_larger_than_stated(seeds: Path, folder: Path) -> Attack:
    """The header says 2 x 2 pixels, the pictures have 12,000 x 12,000."""
    path = video(folder, size=(12_000, 12_000), times=[0, 500])
    data = path.read_bytes()
    width, height = (kind + b"\x82" + (12_000).to_bytes(2, "big") for kind in (b"\xb0", b"\xba"))
    assert width in data and height in data
    path.write_bytes(data.replace(width, b"\xb0\x82\x00\x02").replace(height, b"\xba\x82\x00\x02"))
    return seen(path)


@attack
def pause_of_a_month(seeds: Path, folder: Path) -> Attack:
    return seen(video(folder, size=(32, 32), times=[0, 500, 900_000_000]))


@attack
def duration_of_a_century(seeds: Path, folder: Path) -> Attack:
    return Attack(seen(patched(seeds, folder, b"mdhd", 16, b"\0\0\0\1\x7f\xff\xff\xff")).words)


@attack
def hundred_thousand_frames_a_second(seeds: Path, folder: Path) -> Attack:
    made = seen(patched(seeds, folder, b"mdhd", 16, (4 * 10**8).to_bytes(4, "big")))
    return Attack(made.words)


@attack
def billions_of_chunks(seeds: Path, folder: Path) -> Attack:
    path = folder / "bomb.mp4"
    for table in (b"stsz", b"stts", b"stsc", b"stco", b"ctts"):
        data = (folder / "bomb.mp4" if path.exists() else seeds / "videos" / "v.mp4").read_bytes()
        at = data.find(table) + (12 if table == b"stsz" else 8)
        path.write_bytes(data[:at] + b"\x7f\xff\xff\xf0" + data[at + 4 :])
    return seen(path)


@attack
def million_tiny_chunks(seeds: Path, folder: Path) -> Attack:
    """A million tracks' worth of empty boxes at the end of a video."""
    path = folder / "bomb.mp4"
    path.write_bytes((seeds / "videos" / "v.mp4").read_bytes() + b"\x00\x00\x00\x08free" * 10**6)
    return Attack(seen(path).words)


def patched(seeds: Path, folder: Path, box: bytes, offset: int, value: bytes) -> Path:
    """A valid mp4 with other bytes at an offset in each box of a kind."""
    data = bytearray((seeds / "videos" / "v.mp4").read_bytes())
    at = data.find(box)
    while at >= 0:
        data[at + offset : at + offset + len(value)] = value
        at = data.find(box, at + 4)
    (folder / "bomb.mp4").write_bytes(data)
    return folder / "bomb.mp4"


def add_json_attacks() -> None:
    deep, long = "[" * 100_000 + "]" * 100_000, "9" * 100_000
    places = {
        "caption_jsonl": ("", '{"start": X, "end": 1, "text": "a"}', "v.jsonl:1"),
        "caption_lines": ("", '{"video_id": "v", "start": X, "end": 1, "text": "a"}', "all.jsonl:1"),
        "howto100m_json": ("", '{"v": {"start": [X], "end": [1], "text": ["a"]}}', "raw.json"),
        "corpus_jsonl": ("a.jsonl", '{"video_id": "v", "start": X, "end": 1, "caption": "a"}', "a.jsonl:1"),
        "corpus_coin": ("a.json", '{"database": X}', "a.json"),
        "corpus_vatex": ("a.json", '[{"videoID": "v", "enCap": X}]', "a.json"),
        "shards": ("index.json", '{"version": X}', "index.json"),
        "model_folder": ("config.json", '{"model_type": X}', "model"),
        "bert_tokenizer": ("tokenizer_config.json", '{"tokenizer_class": X}', "tokenizer_config.json"),
        "run": ("metrics.json", '{"task": "x", "metrics": X}', "metrics.json"),
    }
    for name, (file, text, says) in places.items():
        for kind, value in (("deep", deep), ("long", long)):

            def make(
                seeds: Path, folder: Path, name: str = name, file: str = file, text: str = text.replace("X", value),
                says: str = says,
            ) -> Attack:  # fmt: skip
                path = copied(name, seeds, folder)
                (path / file if file else path).write_text(text)
                return Attack(FORMATS[name].words(seeds, path), says)

            ATTACKS[f"{kind}_json_in_{name}"] = make


add_json_attacks()


# What terminals obey.


@attack
def terminal_codes_in_a_file_name(seeds: Path, folder: Path) -> Attack:
    (folder / "videos").mkdir()
    for name in (ESCAPE, "[red]x[/red]", "[/]", ":smile:", "a\nmmpt extract: all is well", "\udcff", "\u202egpj"):
        name = name.replace("/", "\u2215")
        (folder / "videos" / f"{name}.mp4").write_text("no video")
    return Attack(["cache-frames", folder / "videos", "--out", folder / "out", "--size", 32], r"\[red\]x\[.red\]")


@attack
def terminal_codes_in_an_annotation(seeds: Path, folder: Path) -> Attack:
    path = copied("corpus_jsonl", seeds, folder)
    line = {"video_id": f"{ESCAPE}[/]\n\udcff", "start": 0, "end": 4, "caption": "chop"}
    (path / "a.jsonl").write_text(json.dumps(line))
    return Attack(FORMATS["corpus_jsonl"].words(seeds, path), r"a.jsonl: 1 videos have no features.*\\x1b")


@attack
def terminal_codes_in_a_task(seeds: Path, folder: Path) -> Attack:
    return in_yaml(seeds, folder, "task", f"\ntest_set: {json.dumps(f'[/] [red]{ESCAPE}')}\n")


@attack
def terminal_codes_in_a_job(seeds: Path, folder: Path) -> Attack:
    run = folder / "runs" / "r"
    run.mkdir(parents=True)
    about = {"folder": f"[/]{ESCAPE}", "job_id": "1", "executor": "local", "tasks": 1, "logs": str(run), "words": []}
    (run / "job.json").write_text(json.dumps(about))
    return Attack(["jobs", folder / "runs"])


@attack
def terminal_codes_in_a_pickle(seeds: Path, folder: Path) -> Attack:
    (folder / "raw.pickle").write_bytes(b"c\x1b[31mos\nsystem\n.")
    return Attack(shard_captions(seeds, folder / "raw.pickle"), "raw.pickle")


# What pages obey.


class Tags(HTMLParser):
    """The tags of a page, and the attributes that run code."""

    def __init__(self) -> None:
        super().__init__()
        self.scripts = 0
        self.handlers: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.scripts += tag in ("script", "iframe", "object", "embed", "base")
        self.handlers += [name for name, value in attributes if name.startswith("on") or "javascript:" in (value or "")]


def hostile_run(seeds: Path, folder: Path) -> Path:
    """A run whose name, settings, metrics and examples have HTML in them, and videos with such a name."""
    run = folder / f"run{IMAGE.replace('/', '')}"
    shutil.copytree(seeds / "run", run)
    name = f"v{IMAGE.replace('/', '')}"
    (folder / "videos").mkdir()
    shutil.copy(seeds / "videos" / "v.mp4", folder / "videos" / f"{name}.mp4")
    result = json.loads((run / "metrics.json").read_text())
    found = {"video_id": name, "start": 0.0, "end": 4.0, "caption": SCRIPT + IMAGE, "score": 0.5}
    found["meaning"] = {IMAGE: SCRIPT}
    example = {"text": SCRIPT + IMAGE, "rank": 1, "right": found, "found": [found], "half": "better", "meaning_rank": 1}
    result |= {"task": SCRIPT, "test_set": IMAGE, "examples": [example], "benchmark": SCRIPT}
    result["metrics"] |= {SCRIPT: 0.5}
    (run / "metrics.json").write_text(json.dumps(result))
    project = yaml.safe_load((run / "project.yaml").read_text()) | {SCRIPT: {IMAGE: SCRIPT + IMAGE}}
    (run / "project.yaml").write_text(yaml.safe_dump(project))
    return run


def faults_of_page(page: Path, outcome: sandbox.Outcome, folder: Path, *, scripts: int) -> list[str]:
    """An own script more than `scripts`, or an attribute that runs code, counts as a canary."""
    faults = faults_of(outcome, folder)
    if outcome.status:
        return [*faults, "unclear"]
    tags = Tags()
    tags.feed(page.read_text(encoding="utf-8"))
    return faults + (["canaries"] if tags.scripts > scripts or tags.handlers else [])


@attack
def html_on_the_page_of_a_run(seeds: Path, folder: Path) -> list[str]:
    run = hostile_run(seeds, folder)
    outcome = sandbox.command(["report", run, "--videos", folder / "videos"], folder)
    return faults_of_page(run / "index.html", outcome, folder, scripts=1)


@attack
def html_on_the_page_of_several_runs(seeds: Path, folder: Path) -> list[str]:
    run, page = hostile_run(seeds, folder), folder / "runs.html"
    outcome = sandbox.command(["report", run, seeds / "run", "--out", page], folder)
    return faults_of_page(page, outcome, folder, scripts=1)


# What shells obey.


def executed(outcome: sandbox.Outcome, folder: Path) -> list[str]:
    """Run the batch file that a dry run prints, with an srun that does nothing."""
    script = outcome.stdout[outcome.stdout.index("#!/bin/bash") :] if "#!/bin/bash" in outcome.stdout else ""
    (folder / "bin").mkdir()
    for name in ("srun", "scontrol", "module"):
        (folder / "bin" / name).write_text("#!/bin/sh\nexit 0\n")
        (folder / "bin" / name).chmod(0o755)
    path = f"{folder / 'bin'}:{os.environ['PATH']}"
    end = script.find("\n# ") if "\n# " in script else len(script)
    subprocess.run(["bash"], input=script, cwd=folder, env={"PATH": path}, capture_output=True, text=True, timeout=30)
    return faults_of(outcome, folder) + ([] if script or outcome.status == 2 else ["unclear"]) if end else []


@attack
def shell_characters_in_overrides(seeds: Path, folder: Path) -> list[str]:
    given = [f"checkpoint.save_dir={folder}/run {SHELL.replace('/', '')}", f"dataset.train_subset=train {SHELL}"]
    words: Words = ["launch", seeds / "yaml" / "training.yaml", *given, "--profile", "cpu", "--dry-run", "--no-check"]
    return executed(sandbox.command(words, folder), folder)


@attack
def shell_characters_in_file_names(seeds: Path, folder: Path) -> list[str]:
    videos = folder / f"v {SHELL.replace('canary', 'c4nary').replace('/', '')}"
    shutil.copytree(seeds / "videos", videos)
    words: Words = ["launch", "extract", videos, "--encoder", "s3d", "--out", f"{folder}/out {SHELL}"]
    return executed(sandbox.command([*words, "--profile", "cpu", "--dry-run"], folder), folder)


@attack
def shell_characters_in_a_profile(seeds: Path, folder: Path) -> list[str]:
    path = copied("profile", seeds, folder)
    profile = yaml.safe_load(path.read_text())
    profile |= {"setup": [], "partition": f"x {SHELL}", "extra": {"comment": SHELL}, "extra_srun": {"comment": SHELL}}
    path.write_text(yaml.safe_dump(profile))
    return executed(sandbox.command(FORMATS["profile"].words(seeds, path), folder), folder)


def run_attack(name: str, *, seeds: Path, folder: Path) -> Result:
    """Make an attack's files and run its command."""
    import re

    folder.mkdir(parents=True)
    made = ATTACKS[name](seeds, folder)
    if isinstance(made, list):
        quiet = sandbox.Outcome(0, "", "", 0.0, 0, False)
        return Result(name, quiet, made, "an attack")
    variable, value = made.environment
    os.environ[variable or "MMPT_NOTHING"] = value
    outcome = sandbox.command(made.words, folder)
    faults = faults_of(outcome, folder)
    if made.says and not (outcome.status == 2 and re.search(made.says, outcome.stderr + outcome.stdout)):
        faults.append("unclear")
    return Result(name, outcome, faults, f"an attack, expected {made.says!r}" if made.says else "an attack")
