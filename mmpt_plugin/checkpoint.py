"""Checkpoint files: reading without unpickling code, strict loading, writing."""

import argparse
import io
import json
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmpt_plugin import moved
from mmpt_plugin.errors import first_line, first_ten, shortened
from mmpt_plugin.files import atomic_write, read_json, write_files, writing

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

# A fairseq checkpoint stores its configuration as argparse.Namespace if training was started with flags.
SAFE_GLOBALS: list[Any] = [argparse.Namespace]


def find_checkpoint(name: str | Path) -> Path:
    """The path of a file or folder; for a hub name owner/model, the folder downloaded from the hub or in its cache."""
    path = Path(name)
    if path.exists() or path.is_absolute() or len(path.parts) != 2 or path.suffix:
        return path
    try:
        files = [CONFIG_FILE, WEIGHTS_FILE, "tokenizer*", "vocab.txt", "special_tokens_map.json"]
        return Path(snapshot_download(str(name), allow_patterns=files))
    except Exception as error:  # the network and the hub raise many types
        raise ValueError(
            f"no checkpoint at {name}, nor a model of that name on the hub: {first_line(error)}"
        ) from error


def read_torch_file(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """Read the dict in a torch file with tensors, plain values and `SAFE_GLOBALS`; reject anything else.

    With `mmap`, tensors are not loaded until they are used, which is faster if you only need the plain values. A
    TorchScript archive gives its weights by name; its code is not run.
    """
    if not path.is_file():
        raise ValueError(f"no checkpoint at {path}")
    # On exit, the context removes all globals it was given, so it must not be given those that were allowed before.
    allowed = torch.serialization.get_safe_globals()
    try:
        check_archive(path, checksums=not mmap)
        if is_torchscript(path):
            return read_torchscript(path)
        with torch.serialization.safe_globals([kind for kind in SAFE_GLOBALS if kind not in allowed]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} is not read, because it contains objects other than weights and plain values: {first_line(error)}"
        ) from error
    except Exception as error:  # zipfile raises its own types, and torch's unpickler any, for what is not a pickle
        raise ValueError(f"{path} is damaged, or not a torch file: {first_line(error)}") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise ValueError(f"{path} contains a {type(content).__name__}, but a checkpoint is a dict with names")
    return content


def check_archive(path: Path, *, checksums: bool = True) -> None:
    """BadZipFile for a zip file whose data unpack to more than its own size, or do not have their checksums.

    torch itself does not compare the checksums, and writes zeros if `torch.serialization.set_crc32_options(False)`.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            # The code of a TorchScript archive is compressed, and not read.
            data = [one for one in archive.infolist() if not one.filename.partition("/")[2].startswith("code/")]
            for entry in data:
                if entry.compress_type != zipfile.ZIP_STORED:  # torch does not compress data
                    raise zipfile.BadZipFile(f"{entry.filename} is compressed")
            if sum(entry.file_size for entry in data) > path.stat().st_size:
                raise zipfile.BadZipFile("its parts together are larger than the file")
            for entry in data if checksums else ():
                if entry.CRC:
                    with archive.open(entry) as content:
                        while content.read(2**20):
                            pass


def is_torchscript(path: Path) -> bool:
    """Whether a file is a TorchScript archive, as `torch.jit.save` writes it, such as OpenAI's CLIP."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


class Module:
    """Takes the place of every class of a TorchScript archive: it only has the attributes that the archive gives it."""


def read_torchscript(path: Path) -> dict[str, Tensor]:
    """The weights of a TorchScript archive, by the names of its `state_dict`, without running any of its code.

    The data of the archive, but not its code, is copied to an archive that `torch.load(weights_only=True)` reads.
    """
    data = io.BytesIO()
    with zipfile.ZipFile(path) as archive, zipfile.ZipFile(data, "w") as copy:
        for entry in archive.infolist():
            part = entry.filename.partition("/")[2]
            if part in ("data.pkl", "version", "byteorder") or part.startswith("data/"):
                copy.writestr(entry.filename, archive.read(entry))
    data.seek(0)
    names = torch.serialization.get_unsafe_globals_in_checkpoint(data)
    classes = [(Module, name) for name in names if name.startswith("__torch__.")]
    data.seek(0)
    with torch.serialization.safe_globals(classes):  # type: ignore[arg-type]
        return dict(tensors(torch.load(data, map_location="cpu", weights_only=True)))


def tensors(root: Any) -> Iterator[tuple[str, Tensor]]:
    """The tensors of nested modules, with dotted names; a module that is in several places counts once."""
    waiting, seen = [("", root)], set[int]()
    while waiting:
        prefix, module = waiting.pop()
        if id(module) not in seen:
            seen.add(id(module))
            for name, value in getattr(module, "__dict__", {}).items():
                if isinstance(value, Tensor):
                    yield f"{prefix}{name}", value
                elif isinstance(value, Module):
                    waiting.append((f"{prefix}{name}.", value))


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Read config.json and model.safetensors from a folder that `write_folder` wrote."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}: a model folder contains {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        config, weights = read_json(folder / CONFIG_FILE), load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # safetensors and json raise their own types
        raise ValueError(f"{folder} can't be read: {error}") from error
    if not isinstance(config, dict):
        raise ValueError(f"{folder / CONFIG_FILE}: expected an object, got {shortened(config)}")
    return config, weights


def write_folder(
    folder: Path,
    config: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    *,
    more: Callable[[Path], Any] = lambda folder: None,
) -> None:
    """Write the weights, the configuration, and the files that `more` writes to the folder that it is given.

    All are complete before the first gets its name, and replaces a file that is there. ValueError if another process
    writes to the folder.
    """
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}

    def write(temporary: Path) -> None:
        atomic_write(temporary / WEIGHTS_FILE, lambda path: save_file(whole, path, metadata={"format": "pt"}))
        (temporary / CONFIG_FILE).write_text(json.dumps(dict(config), indent=2) + "\n")
        more(temporary)

    with writing(folder):
        write_files(folder, write)


def check_weights(weights: Mapping[str, Any], *, where: str) -> None:
    """ValueError, with its name, for a value that is not a weight: a dense tensor of finite numbers, all in the file.

    A file of a few bytes may describe a tensor of gigabytes, all of whose elements are the same place in memory.
    """
    for name, value in weights.items():
        if not isinstance(value, Tensor):
            raise ValueError(f"{where}: {name} is a {type(value).__name__}, expected a tensor")
        if value.layout != torch.strided or value.is_complex() or value.is_meta or value.is_quantized:
            raise ValueError(f"{where}: {name} is a tensor of {value.layout}, {value.dtype}, on {value.device}")
        if value.numel() * value.element_size() > value.untyped_storage().nbytes():
            raise ValueError(f"{where}: {name} is {tuple(value.shape)}, but the file has fewer numbers")
        if not torch.isfinite(value).all():
            raise ValueError(f"{where}: {name} holds NaN or infinity")


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], *, where: str) -> None:
    """Load `weights`; missing, unexpected or wrongly shaped keys are a ValueError that names them."""
    check_weights(weights, where=where)
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    problems = [f"missing {name}" for name in expected if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in expected]
    problems += [
        f"{name} is {tuple(weights[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    if problems:
        raise ValueError(f"{where} does not fit the model: {first_ten(problems)}")
    module.load_state_dict(dict(weights))


__getattr__ = moved.attributes(__name__)
