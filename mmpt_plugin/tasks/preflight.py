"""What a training needs, checked without training: starting weights, data, a model that fits them, and disk space."""

import os
import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from huggingface_hub import try_to_load_from_cache
from torch import nn

from mmpt_plugin import registry
from mmpt_plugin.checkpoint import CONFIG_FILE
from mmpt_plugin.models.embedding import Embedder

STARTS = ("pretrained", "bert", "clip")  # keys of the model that name starting weights
TOKENIZER_FILES = ("tokenizer_config.json", "vocab.txt", "tokenizer.json")
BYTES_SAVED = 12  # of a checkpoint, per weight: the weight and Adam's two averages, in float32
GIB = 2**30


class Finding(NamedTuple):
    """One line about a project: what is there or, if not `ok`, what has to be changed."""

    ok: bool
    line: str


def problems(project: Mapping[str, Any]) -> Iterator[str]:
    """Yield one line for each thing that would stop the training of a composed project (`fine_tuned`).

    Opens the data and builds the model as the training does, but does not read the checksums of shards.
    """
    yield from (finding.line for finding in findings(project) if not finding.ok)


def findings(project: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield a line for the weights, the data, the model, and the folder of a composed training project."""
    started = list(weights_and_tokenizers(project))
    yield from started
    dataset, source = None, source_of(project)
    for split, opened in open_splits(project).items():
        if isinstance(opened, Exception):
            yield Finding(False, f"{split}: {opened}{source}")
            source = ""
        else:
            dataset = opened if split == "train" else dataset
            yield Finding(True, f"{split}: {len(opened):,} videos" if hasattr(opened, "__len__") else f"{split}: there")
    model = None
    if all(finding.ok for finding in started):
        try:
            model = build_model(project, dataset)
            yield Finding(True, f"model {project['model']['_name']}: {num_weights(model):,} parameters")
        except (ValueError, OSError) as error:
            yield Finding(False, f"model: {error}")
    yield folder(project, 0 if model is None else num_weights(model))


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


def open_splits(project: Mapping[str, Any]) -> dict[str, Any]:
    """Each split that the training reads, and the benchmark, or the exception that says what is wrong with it."""
    section = dict(project["task"]) | ({"sampler": project["sampler"]} if project.get("sampler") else {})
    dataset = dict(section.get("dataset") or {})
    if "verify_checksums" in fields_of(dataset):
        section["dataset"] = dataset | {"verify_checksums": False}
    try:
        task: Any = registry.tasks.build(section)
    except (ValueError, OSError) as error:
        return {"task": error}
    validates = not (project.get("dataset") or {}).get("disable_validation")
    benchmark_only = getattr(task, "has_benchmark_only", lambda split: False)
    opened: dict[str, Any] = {}
    for split in ("train", "valid") if validates else ("train",):
        try:
            if split != "train" and benchmark_only(split):
                opened["benchmark"] = task.build_benchmark()
            else:
                opened[split] = task.dataset(split)
                task.sampler(opened[split], split=split, seed=1)
        except (ValueError, OSError) as error:
            opened[split] = error
    return opened


def fields_of(section: Mapping[str, Any]) -> set[str]:
    """The keys of the data set that a section configures; none for an unknown name, which building it reports."""
    name = section.get("_name")
    return set(registry.datasets[name].config.__dataclass_fields__) if name in registry.datasets else set()


def source_of(project: Mapping[str, Any]) -> str:
    """The end of a line that says where to get the data, as the task's YAML does; '' if it does not say it."""
    task = project.get("task") or {}
    source = task.get("source") or (task.get("benchmark") or {}).get("source")
    return f". Source: {source}" if source else ""


def build_model(project: Mapping[str, Any], dataset: Any) -> nn.Module:
    """The model with its starting weights; ValueError if it does not fit them or the training data."""
    model: Any = registry.models.build(project["model"])
    if dataset is not None and isinstance(model, Embedder):
        model.check_dataset(dataset, where="split 'train'")
    return model


def num_weights(model: nn.Module) -> int:
    """The number of the model's parameters."""
    return sum(weight.numel() for weight in model.parameters())


def folder(project: Mapping[str, Any], weights: int) -> Finding:
    """Whether checkpoint.save_dir can be written, and its disk has space for the checkpoints that are kept.

    A checkpoint has 12 bytes per parameter, the weight and Adam's two averages. One more is counted: the one that is
    being written.
    """
    save_dir = Path(project["checkpoint"]["save_dir"])
    present = next(path for path in (save_dir, *save_dir.absolute().parents) if path.exists())
    if not present.is_dir() or not os.access(present, os.W_OK):
        return Finding(False, f"checkpoint.save_dir {save_dir}: {present} is not a folder that can be written")
    free = shutil.disk_usage(present).free
    number, needed = num_checkpoints(project), BYTES_SAVED * weights * (num_checkpoints(project) + 1)
    line = (
        f"checkpoint.save_dir {save_dir}: {free / GIB:.1f} GiB free, {number} checkpoints need {needed / GIB:.1f} GiB"
    )
    return Finding(free >= needed, line)


def num_checkpoints(project: Mapping[str, Any]) -> int:
    """The number of checkpoints that a run keeps: the last, the best, and those of epochs and of updates."""
    checkpoint, optimization = project["checkpoint"], project.get("optimization") or {}
    count = 1 if (project.get("dataset") or {}).get("disable_validation") else 2
    if not checkpoint.get("no_epoch_checkpoints"):
        epochs = int(optimization.get("max_epoch") or 0) // max(1, int(checkpoint.get("save_interval") or 1))
        kept = int(checkpoint.get("keep_last_epochs") or -1)
        count += min(epochs, kept) if kept > 0 else epochs
    return count + max(0, int(checkpoint.get("keep_interval_updates") or 0))
