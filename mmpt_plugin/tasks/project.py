"""Training projects: composed, with the data of fine-tuning and the sizes that starting weights and data determine."""

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields
from typing import Any

from mmpt_plugin import registry
from mmpt_plugin.config import load_project, overridden, plain
from mmpt_plugin.models.pretrained import PretrainedEmbedder
from mmpt_plugin.tasks.finetuning import fine_tuned

logger = logging.getLogger(__name__)


def load_training(project: str, overrides: Sequence[str] = ()) -> dict[str, Any]:
    """The project that `mmpt train` trains; see `load_project`, `fine_tuned` and `with_sizes`."""
    return with_sizes(fine_tuned(plain(load_project(project, overrides))), given=overridden(overrides))


def with_sizes(project: dict[str, Any], *, given: Collection[str] = ()) -> dict[str, Any]:
    """The project with the settings of its model that it leaves out and that its starting weights or data determine.

    With starting weights (`model.pretrained`, `model.bert`), these are the settings that they were trained with; a
    size that contradicts them is a ValueError. Without, these are the width of the features and the size of the
    vocabulary. `given` are the keys of the command line: starting weights that are given there replace the sizes of the
    YAML, with a log line.
    """
    model = project.get("model") or {}
    if model.get("_name") not in registry.models:
        return project
    cls: Any = registry.models[model["_name"]].cls
    found = cls.start_settings(model) if issubclass(cls, PretrainedEmbedder) else {}
    if not found:
        return project | {"model": sizes_of_data(project) | model}
    kept = agreeing(model, found, cls.sizes, given=given)
    return project | {"model": found | kept}


def agreeing(
    model: Mapping[str, Any], found: Mapping[str, Any], sizes: Sequence[str], *, given: Collection[str]
) -> dict[str, Any]:
    """The model's settings without the sizes that contradict `found`, those of its starting weights."""
    key, start = next((key, model[key]) for key in ("pretrained", "bert") if model.get(key))
    inherited = [size for size in sizes if f"model.{key}" in given and f"model.{size}" not in given and size in model]
    replaced = [size for size in inherited if model[size] != found.get(size)]
    for size in sizes:
        if size in found and model.get(size, found[size]) != found[size] and size not in replaced:
            raise ValueError(
                f"model.{size} is {model[size]}, but it is {found[size]} in model.{key}, {start}: leave out "
                f"model.{size}, which is read from there"
            )
    if replaced:
        names = ", ".join(f"model.{size}" for size in replaced)
        logger.info("model.%s=%s brings its own sizes, which replace the project's %s", key, start, names)
    return {key: value for key, value in model.items() if key not in replaced}


def sizes_of_data(project: Mapping[str, Any]) -> dict[str, Any]:
    """The sizes that the training data determine, of those that the model has."""
    dataset = (project.get("task") or {}).get("dataset") or {}
    if dataset.get("_name") not in registry.datasets:
        return {}
    data: Any = registry.datasets[dataset["_name"]].cls
    known = {field.name for field in fields(registry.models[project["model"]["_name"]].config)}
    found = data.sizes(dataset, "train") if hasattr(data, "sizes") else {}
    return {key: value for key, value in found.items() if key in known}
