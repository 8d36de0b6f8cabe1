"""Attacks that lead out of a folder, fill the memory, or never end."""

import io
import json
import shutil
import zipfile
from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import torch

from benchmarks.hostile import sandbox
from benchmarks.hostile.attacks import ATTACKS, Attack, attack, copied
from benchmarks.hostile.cases import faults_of
from benchmarks.hostile.formats import FORMATS, Words, convert, embed_text, shard_features
from benchmarks.hostile.seeds import ENCODER

# Paths.


@attack
def shard_outside_of_its_folder(seeds: Path, folder: Path) -> Attack:
    found = shard_named("../outside.safetensors", seeds, folder)
    shutil.move(folder / "shards" / "shard-00000.safetensors", folder / "outside.safetensors")
    return found


@attack
def absolute_shard(seeds: Path, folder: Path) -> Attack:
    return shard_named("/etc/passwd", seeds, folder)


def shard_named(name: str, seeds: Path, folder: Path) -> Attack:
    """Shards whose index gives a shard this name."""
    path = copied("shards", seeds, folder)
    text = (path / "index.json").read_text().replace("shard-00000.safetensors", name)
    (path / "index.json").write_text(text)
    return Attack(FORMATS["shards"].words(seeds, path), f"'{name}' leads out of")


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
    assert width in data
    assert height in data
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
