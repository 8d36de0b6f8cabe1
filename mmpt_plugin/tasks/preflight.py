"""What a training needs, checked without training: starting weights, data, a model that fits them, and disk space."""

import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import try_to_load_from_cache
from torch import nn

from mmpt_plugin import registry
from mmpt_plugin.checkpoint import CONFIG_FILE
from mmpt_plugin.models.embedding import Embedder
from mmpt_plugin.models.pretrained import STARTS

TOKENIZER_FILES = ("tokenizer_config.json", "vocab.txt", "tokenizer.json")
BYTES_SAVED = 12  # of a checkpoint, per weight: the weight and Adam's two averages, in float32
GIB = 2**30


class Finding(NamedTuple):
    """One line about a project: what is there or, if not `ok`, what has to be changed."""

    ok: bool
    line: str


@dataclass
class Examined:
    """The findings about a project, and the parts that could be built."""

    findings: list[Finding] = field(default_factory=list)
    dataset: Any = None
    """The data of the training split."""
    sampler: Any = None
    model: Any = None

    def add(self, ok: bool, line: str) -> None:
        """Add a finding."""
        self.findings.append(Finding(ok, line))


def problems(project: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each thing that would stop the training of a composed project (`load_training`).

    Opens the data and builds the model as the training does, but does not read the checksums of shards.
    """
    yield from (finding.line for finding in examine(project).findings if not finding.ok)


def examine(project: Mapping[str, Any]) -> Examined:
    """Look at the weights, the data, the model and the folder of a composed training project; nothing is written."""
    found = Examined(list(weights_and_tokenizers(project)))
    there = all(finding.ok for finding in found.findings)
    open_splits(project, found)
    if there:
        build_model(project, found)
    found.findings.append(folder(project, num_weights(found.model)))
    return found


def weights_and_tokenizers(project: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a line for each name of starting weights or of a tokenizer."""
    model = project.get("model") or {}
    named = [(f"model.{key}", str(model[key])) for key in STARTS if model.get(key)]
    named += [("tokenizer", name) for name in dict.fromkeys(tokenizers(project.get("task") or {}))]
    for key, name in named:
        if Path(name).exists():
            yield Finding(True, f"{key}: {name}")
        elif is_cached(name):
            yield Finding(True, f"{key}: {name}, in the cache of the Hugging Face hub")
        elif is_hub_name(name):
            advice = f"nor in the cache of the Hugging Face hub; to download it: hf download {name}"
            yield Finding(False, f"{key}: {name} is not a folder here, {advice}")
        else:
            yield Finding(False, f"{key}: there is no file or folder {name}")


def tokenizers(section: Mapping[str, Any]) -> Iterator[str]:
    """Yield each `tokenizer` in a section and the sections in it."""
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from tokenizers(value)
        elif key == "tokenizer" and value is not None:
            yield str(value)


def is_hub_name(name: str) -> bool:
    """Whether a name can be one of the hub, `model` or `owner/model`, rather than a path."""
    path = Path(name)
    return not path.is_absolute() and not name.startswith(".") and len(path.parts) <= 2 and path.suffix != ".pt"


def is_cached(name: str) -> bool:
    """Whether the hub's cache on this machine has a model or a tokenizer of this name."""
    return is_hub_name(name) and any(
        isinstance(try_to_load_from_cache(name, file), str) for file in (CONFIG_FILE, *TOKENIZER_FILES)
    )


def open_splits(project: Mapping[str, Any], found: Examined) -> None:
    """Open the splits that the training reads, and the benchmark."""
    section = dict(project.get("task") or {}) | ({"sampler": project["sampler"]} if project.get("sampler") else {})
    dataset = dict(section.get("dataset") or {})
    if "verify_checksums" in known_keys(dataset):
        section["dataset"] = dataset | {"verify_checksums": False}
    validates = not (project.get("dataset") or {}).get("disable_validation")
    source = source_of(project)
    task: Any = None
    for split in ("train", "valid") if validates else ("train",):
        try:
            task = task or registry.tasks.build(section)
            if split == "valid" and getattr(task, "has_benchmark_only", lambda split: False)(split):
                task.build_benchmark()
                found.add(True, "valid: the benchmark alone")
                continue
            data = task.dataset(split)
            sampler = task.sampler(data, split=split, seed=1)
            if split == "train":
                found.dataset, found.sampler = data, sampler
            found.add(True, f"{split}: {len(data):,} videos")
        except (ValueError, OSError) as error:
            found.add(False, f"{split}: {error}{source}")
            source = ""
            if task is None:
                return


def known_keys(section: Mapping[str, Any]) -> set[str]:
    """The keys of the data set that a section configures; none for an unknown name, which building it reports."""
    name = str(section.get("_name"))
    return {field.name for field in fields(registry.datasets[name].config)} if name in registry.datasets else set()


def source_of(project: Mapping[str, Any]) -> str:
    """The end of a line that says where to get the data, as the task's YAML does; '' if it does not say it."""
    task = project.get("task") or {}
    source = task.get("source") or (task.get("benchmark") or {}).get("source")
    return f". Source: {source}" if source else ""


def build_model(project: Mapping[str, Any], found: Examined) -> None:
    """Build the model with its starting weights, and compare it with the training data."""
    try:
        model: Any = registry.models.build(project.get("model") or {})
        if found.dataset is not None and isinstance(model, Embedder):
            model.check_dataset(found.dataset, where="split 'train'")
        found.model = model
        found.add(True, f"model {project['model']['_name']}: {num_weights(model):,} parameters")
    except (ValueError, OSError) as error:
        found.add(False, f"model: {error}")


def num_weights(model: nn.Module | None) -> int:
    """The number of the model's parameters; 0 without a model."""
    return 0 if model is None else sum(weight.numel() for weight in model.parameters())


def folder(project: Mapping[str, Any], weights: int) -> Finding:
    """Whether checkpoint.save_dir can be written, and its disk has space for the checkpoints that are kept.

    A checkpoint has 12 bytes per parameter, the weight and Adam's two averages. One more is counted: the one that is
    being written. Those that are there already need no more space.
    """
    save_dir = Path(project["checkpoint"]["save_dir"])
    present = next(path for path in (save_dir, *save_dir.absolute().parents) if path.exists())
    if not present.is_dir() or not os.access(present, os.W_OK):
        return Finding(False, f"checkpoint.save_dir {save_dir}: {present} is not a folder that can be written")
    free = shutil.disk_usage(present).free
    number = num_checkpoints(project)
    needed = BYTES_SAVED * weights * (number + 1) - sum(path.stat().st_size for path in save_dir.glob("checkpoint*.pt"))
    line = f"{save_dir}: {free / GIB:.1f} GiB free, {number} checkpoints need {max(needed, 0) / GIB:.2f}"
    return Finding(free >= needed, f"checkpoint.save_dir {line}")


def num_checkpoints(project: Mapping[str, Any]) -> int:
    """The number of checkpoints that a run keeps: the last, the best, and those of epochs and of updates."""
    checkpoint, optimization = project["checkpoint"], project.get("optimization") or {}
    count = 1 if (project.get("dataset") or {}).get("disable_validation") else 2
    if not checkpoint.get("no_epoch_checkpoints"):
        epochs = int(optimization.get("max_epoch") or 0) // max(1, int(checkpoint.get("save_interval") or 1))
        kept = int(checkpoint.get("keep_last_epochs") or -1)
        count += min(epochs, kept) if kept > 0 else epochs
    return count + max(0, int(checkpoint.get("keep_interval_updates") or 0))
