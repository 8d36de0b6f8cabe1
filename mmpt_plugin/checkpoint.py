"""Checkpoint files: reading them without unpickling code, strict loading, writing."""

import argparse
import json
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from mmpt_plugin.errors import first_line
from mmpt_plugin.files import atomic_write

CONFIG_FILE, WEIGHTS_FILE = "config.json", "model.safetensors"

# A fairseq checkpoint keeps its configuration as argparse.Namespace where it was started with flags.
SAFE_GLOBALS: list[Any] = [argparse.Namespace]


def find_checkpoint(name: str | Path) -> Path:
    """A file or folder as it is; else the folder of a model of that name, owner/model, from the hub or its cache."""
    path = Path(name)
    if path.exists() or path.is_absolute() or len(path.parts) != 2 or path.suffix:
        return path
    try:
        files = [CONFIG_FILE, WEIGHTS_FILE, "tokenizer*", "vocab.txt", "special_tokens_map.json"]
        return Path(snapshot_download(str(name), allow_patterns=files))
    except Exception as error:  # of the network's and of the hub's many kinds
        raise ValueError(
            f"no checkpoint at {name}, nor a model of that name on the hub: {first_line(error)}"
        ) from error


def read_torch_file(path: Path, *, mmap: bool = False) -> dict[str, Any]:
    """The dict in a torch file; tensors, plain values and `SAFE_GLOBALS` are read, all else is refused.

    With `mmap` tensors stay in the file until they are used: for a look at the plain values of a large one.
    """
    if not path.is_file():
        raise ValueError(f"no checkpoint at {path}")
    # On leaving, the context forbids all that it allowed: also what was allowed before, so it may not name that.
    allowed = torch.serialization.get_safe_globals()
    try:
        with torch.serialization.safe_globals([kind for kind in SAFE_GLOBALS if kind not in allowed]):
            content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        raise ValueError(
            f"{path} holds more than weights and plain values, and is not read: {first_line(error)}"
        ) from error
    except (RuntimeError, EOFError, OSError) as error:
        raise ValueError(f"{path} is damaged or no torch file: {first_line(error)}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path} holds a {type(content).__name__}, a checkpoint is a dict")
    return content


def read_folder(folder: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """config.json and model.safetensors, as `write_folder` leaves them."""
    for name in (CONFIG_FILE, WEIGHTS_FILE):
        if not (folder / name).is_file():
            raise ValueError(f"{folder} has no {name}: a model's folder holds {CONFIG_FILE} and {WEIGHTS_FILE}")
    try:
        return json.loads((folder / CONFIG_FILE).read_text()), load_file(folder / WEIGHTS_FILE)
    except Exception as error:  # safetensors and json have exceptions of their own
        raise ValueError(f"{folder} can't be read: {error}") from error


def write_folder(folder: Path, config: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    whole = {name: tensor.detach().cpu().contiguous() for name, tensor in weights.items()}
    atomic_write(folder / WEIGHTS_FILE, lambda path: save_file(whole, path, metadata={"format": "pt"}))
    atomic_write(folder / CONFIG_FILE, lambda path: path.write_text(json.dumps(dict(config), indent=2) + "\n"))


def load_strictly(module: nn.Module, weights: Mapping[str, Tensor], *, where: str) -> None:
    """Every parameter from `weights` and nothing over; else a ValueError that names the keys."""
    expected = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    problems = [f"missing {name}" for name in expected if name not in weights]
    problems += [f"unexpected {name}" for name in weights if name not in expected]
    problems += [
        f"{name} is {tuple(weights[name].shape)} instead of {shape}"
        for name, shape in expected.items()
        if name in weights and tuple(weights[name].shape) != shape
    ]
    problems += [f"{name} holds NaN or infinity" for name in weights if not torch.isfinite(weights[name]).all().item()]
    if problems:
        more = f" and {len(problems) - 10} more" if len(problems) > 10 else ""
        raise ValueError(f"{where} does not fit the model: {'; '.join(problems[:10])}{more}")
    module.load_state_dict(dict(weights))
