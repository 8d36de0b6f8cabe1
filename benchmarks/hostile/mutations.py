"""Mutations of files: of their bytes, their text, and the structure of JSON, YAML, pickles, arrays and archives."""

import io
import json
import pickle
import re
import struct
import zipfile
from collections.abc import Callable
from random import Random
from typing import Any

import yaml

Mutation = Callable[[Random, bytes], bytes]

HEADERS = (
    b"\x89PNG\r\n\x1a\n", b"GIF89a", b"\x00\x00\x00\x20ftypisom", b"\x1a\x45\xdf\xa3", b"RIFF\xff\xff\xff\xffAVI ",
    b"PK\x03\x04", b"\x1f\x8b\x08", b"\x80\x05.", b"\x93NUMPY\x01\x00", b"\xff" * 4, b"\xff\xff\xff\xff\xff\xff\x7f",
    b"#EXTM3U\n", b"ffconcat version 1.0\n", b"<svg>", b"%PDF-1.7", b"\x7fELF", b"\xef\xbb\xbf", b"\xff\xfe",
)  # fmt: skip
INTEGERS = (0, 1, -1, 2**15, 2**16 - 1, 2**31 - 1, -(2**31), 2**32 - 1, 2**63 - 1, -(2**63))
NUMBERS = ("0", "-1", "1e309", "-0.0", "NaN", "9" * 20, "9" * 5000, "1e-320", "2147483648", "0x10", "1_0", "٣", "½", "")
TEXTS = (
    "", " ", "\x00", "\x1b[31mred", "../../x", "/etc/passwd", "a\nb", "\ud83d", "é" * 3, "x" * 100_000, "[b]b[/b]",
    "<script>", "$(touch x)", "${oc.env:HOME}", "\u202e", "nan", "NULL", "true", "%s%n", "'\"", "\\", "-", ".", "~",
)  # fmt: skip
VALUES: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**6, 10**9, 2**31, 2**63, 10**40, -(10**40), 0.5, 1e308, float("nan")),
    *(float("inf"), -float("inf"), [], {}, [[]], {"": None}, ["a"], {"a": 1}, *TEXTS),
)


def place(rng: Random, data: bytes) -> int:
    """A position; half of the time near the start, where headers are."""
    return rng.randrange(min(len(data), 512) if rng.random() < 0.5 else len(data)) if data else 0


def flipped_bits(rng: Random, data: bytes) -> bytes:
    changed = bytearray(data)
    for _ in range(rng.choice([1, 1, 4, 64])):
        if changed:
            changed[place(rng, data)] ^= 1 << rng.randrange(8)
    return bytes(changed)


def truncated(rng: Random, data: bytes) -> bytes:
    return data[: rng.choice([0, 1, 7, place(rng, data), max(0, len(data) - 1)])]


def moved_span(rng: Random, data: bytes) -> bytes:
    """A span is removed, repeated, zeroed, or written elsewhere."""
    start = place(rng, data)
    span = data[start : start + rng.choice([1, 8, 100, 4096])]
    rest, at = data[start + len(span) :], place(rng, data)
    return rng.choice([
        data[:start] + rest, data[:start] + span * rng.choice([2, 50]) + rest, data[:start] + bytes(len(span)) + rest,
        data[:start] + b"\xff" * len(span) + rest, data[:at] + span + data[at:],
    ])  # fmt: skip


def swapped_header(rng: Random, data: bytes) -> bytes:
    header = rng.choice(HEADERS)
    return header + data[rng.choice([0, len(header)]) :]


def extreme_integer(rng: Random, data: bytes) -> bytes:
    """Four or eight bytes are an extreme integer of either byte order."""
    form = rng.choice(["<i", ">i", "<q", ">q"])
    size = struct.calcsize(form)
    number = rng.choice(INTEGERS) & (1 << 8 * size) - 1
    at = place(rng, data) & ~3
    return data[:at] + struct.pack(form.upper(), number) + data[at + size :]


def noise(rng: Random, data: bytes) -> bytes:
    at = place(rng, data)
    return data[:at] + rng.randbytes(rng.choice([1, 16, 1000])) + data[at:]


BYTES: tuple[Mutation, ...] = (flipped_bits, truncated, moved_span, swapped_header, extreme_integer, noise)


def other_number(rng: Random, data: bytes) -> bytes:
    """One of the numbers in a text is another."""
    found = list(re.finditer(rb"\d+(\.\d+)?", data))
    if not found:
        return noise(rng, data)
    one = rng.choice(found)
    return data[: one.start()] + rng.choice(NUMBERS).encode() + data[one.end() :]


def other_text(rng: Random, data: bytes) -> bytes:
    """Some text is inserted, or replaces a word."""
    words = list(re.finditer(rb"\w+", data))
    one = rng.choice(words) if words else None
    start = place(rng, data) if one is None or rng.random() < 0.3 else one.start()
    end = one.end() if one is not None and start == one.start() else start
    return data[:start] + rng.choice(TEXTS).encode(errors="surrogatepass") + data[end:]


def other_lines(rng: Random, data: bytes) -> bytes:
    """A line is removed, repeated, swapped with another, or joined with the next."""
    lines = data.split(b"\n")
    first, second = rng.randrange(len(lines)), rng.randrange(len(lines))
    kind = rng.randrange(5)
    if kind == 0:
        del lines[first]
    elif kind == 1:
        lines.insert(second, lines[first])
    elif kind == 2:
        lines[first], lines[second] = lines[second], lines[first]
    elif kind == 3:
        lines[first : first + 2] = [b"".join(lines[first : first + 2])]
    else:
        lines[first] = lines[first] * rng.choice([2, 10_000])
    return b"\n".join(lines)


TEXT: tuple[Mutation, ...] = (other_number, other_text, other_lines, flipped_bits, truncated, moved_span, noise)


def nested(depth: int) -> str:
    return "[" * depth + "]" * depth


def mutated_tree(rng: Random, tree: Any) -> Any:
    """A copy of nested lists and mappings in which one value or key is another, is missing, or is repeated."""
    if rng.random() < 0.05:
        return rng.choice(VALUES)
    if not isinstance(tree, dict | list) or not tree:
        return rng.choice(VALUES)
    copied: Any = list(tree) if isinstance(tree, list) else dict(tree)
    key = rng.choice(list(copied) if isinstance(copied, dict) else range(len(copied)))
    kind = rng.random()
    if isinstance(copied[key], dict | list) and copied[key] and kind < 0.75:
        copied[key] = mutated_tree(rng, copied[key])
    elif kind < 0.85:
        copied[key] = rng.choice(VALUES)
    elif kind < 0.9 and isinstance(copied, dict):
        copied[rng.choice(TEXTS)] = copied.pop(key)
    elif kind < 0.93:
        copied = {"a": copied} if isinstance(copied, dict) else dict(enumerate(copied))
    elif kind < 0.95 and isinstance(copied, list):
        copied *= 3
    else:
        del copied[key]
    return copied


def as_json(tree: Any) -> bytes:
    return json.dumps(tree).encode()


def json_tree(rng: Random, data: bytes) -> bytes:
    """One value of a JSON document is another, or is nested too deep for a parser."""
    text = as_json(mutated_tree(rng, json.loads(data)))
    if rng.random() < 0.1:
        return other_number(rng, text).replace(b"null", nested(rng.choice([500, 100_000])).encode(), 1)
    return text


def json_line(rng: Random, data: bytes) -> bytes:
    """The same in one line of JSON lines."""
    lines = data.strip().split(b"\n")
    number = rng.randrange(len(lines))
    lines[number] = json_tree(rng, lines[number])
    return b"\n".join(lines)


def yaml_tree(rng: Random, data: bytes) -> bytes:
    """The same in YAML, with the comments before it, among which is Hydra's header."""
    header = b"".join(line for line in data.splitlines(keepends=True) if line.startswith(b"#"))
    tree = mutated_tree(rng, yaml.safe_load(data))
    return header + yaml.safe_dump(tree, sort_keys=False).encode(errors="surrogatepass")


def pickle_tree(rng: Random, data: bytes) -> bytes:
    """The same in a pickle of plain values."""
    return pickle.dumps(mutated_tree(rng, pickle.loads(data)), protocol=rng.choice([2, 5]))  # of our own making


def npy_header(rng: Random, data: bytes) -> bytes:
    """The header of an array, its shape and type, is changed; its length stays true."""
    size = int.from_bytes(data[8:10], "little")
    header = rng.choice([other_number, other_text, flipped_bits])(rng, data[10 : 10 + size])[:60_000]
    if rng.random() < 0.5:
        kind = rng.choice(["|O", "<f8", "<f2", "|V1", "<U9", "<M8[s]", "<c16", "[('a', '<f4')]"])
        shape = rng.choice(["()", "(0, 512)", "(10, 0)", "(-1, 512)", f"({2**62}, 512)", "(1, 1, 1)", "(10**9, 512)"])
        header = f"{{'descr': '{kind}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()
    return data[:8] + len(header).to_bytes(2, "little") + header + data[10 + size :]


def safetensors_header(rng: Random, data: bytes) -> bytes:
    """The JSON header of a safetensors file is changed; its length stays true."""
    size = int.from_bytes(data[:8], "little")
    header = rng.choice([json_tree, json_tree, other_number])(rng, data[8 : 8 + size])
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


def archive_member(rng: Random, data: bytes) -> bytes:
    """One member of a zip file is changed, with the right checksum; or removed, or compressed."""
    made = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(data)) as source, zipfile.ZipFile(made, "w") as target:
        chosen = rng.choice([*source.namelist(), *[name for name in source.namelist() if name.endswith(".pkl")] * 9])
        kind = rng.choice(["change", "change", "change", "remove", "compress"])
        for name in source.namelist():
            content = source.read(name)
            if name == chosen and kind == "remove":
                continue
            if name == chosen and kind == "change":
                content = rng.choice(BYTES)(rng, content)
            packed = zipfile.ZIP_DEFLATED if name == chosen and kind == "compress" else zipfile.ZIP_STORED
            target.writestr(name, content, packed)
    return made.getvalue()


def torch_tree(rng: Random, data: bytes) -> bytes:
    """One value of a checkpoint, or a weight in it, is another."""
    import torch

    tree = torch.load(io.BytesIO(data), weights_only=False)  # of our own making
    made = io.BytesIO()
    torch.save(mutated_weights(rng, tree) if rng.random() < 0.6 else mutated_tree(rng, tree), made)
    return made.getvalue()


def mutated_weights(rng: Random, tree: Any) -> Any:
    """A copy of a checkpoint in which one tensor has another shape, type or value, or is missing."""
    import torch

    where = next((key for key in ("model", "state_dict") if key in tree), None)
    weights = dict(tree if where is None else tree[where])
    name = rng.choice([key for key, value in weights.items() if isinstance(value, torch.Tensor)])
    one = weights.pop(name)
    other = rng.choice([
        None, one.flatten(), one.flatten()[:0], one.double(), one.to(torch.int64), one.bool(), one.to(torch.complex64),
        torch.full_like(one, float("nan")) if one.is_floating_point() else one + 1, one[None], torch.zeros(()),
        torch.zeros(1).expand(2**20, 2**10), one.to_sparse() if one.ndim else one, one.to("meta"), "text", 3, [one],
    ])  # fmt: skip
    if other is not None:
        weights[rng.choice([name, name, name, f"{name}.x", ""])] = other
    return weights if where is None else {**tree, where: weights}


KINDS: dict[str, tuple[Mutation, ...]] = {
    "bytes": BYTES,
    "text": TEXT,
    "json": (json_tree, json_tree, json_tree, *TEXT),
    "jsonl": (json_line, json_line, json_line, *TEXT),
    "yaml": (yaml_tree, yaml_tree, yaml_tree, *TEXT),
    "pickle": (pickle_tree, pickle_tree, *BYTES),
    "npy": (npy_header, npy_header, *BYTES),
    "safetensors": (safetensors_header, safetensors_header, *BYTES),
    "archive": (archive_member, archive_member, *BYTES),
    "torch": (torch_tree, torch_tree, archive_member, archive_member, *BYTES),
}
