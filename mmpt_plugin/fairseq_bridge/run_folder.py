"""The folder of a run: its settings, and whether it is finished."""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml

from mmpt_plugin import registry
from mmpt_plugin.checkpoint import check_weights, read_torch_file
from mmpt_plugin.config import flat
from mmpt_plugin.errors import shortened
from mmpt_plugin.fairseq_bridge.preemption import LAST
from mmpt_plugin.files import atomic_write
from mmpt_plugin.yaml_files import read_yaml

PROJECT = "project.yaml"

# Settings that affect neither what is learned nor the order of the data.
BOOKKEEPING = re.compile(
    r"common\.(log_|tensorboard|wandb|aim_|azureml|user_dir)|dataset\.num_workers|distributed_training\."
    r"|checkpoint\.(save_|keep_|no_)|task\.source|benchmarks|protocol|setting"
)

Settings = dict[str, Any]


def check_settings(project: Mapping[str, Any]) -> None:
    """ValueError, naming the settings, if the folder has checkpoints of a run with other settings."""
    folder = Path(project["checkpoint"]["save_dir"])
    stored = folder / PROJECT
    if not stored.is_file() or not any(folder.glob("checkpoint*.pt")):
        return
    try:
        before = flat(with_current_names(read_yaml(stored) or {}))
    except (ValueError, AttributeError) as error:
        raise ValueError(f"{stored} can't be read, so the settings of the run there are unknown: {error}") from error
    changed = list(differences(before, flat(with_current_names(project))))
    if changed:
        more = f" and {len(changed) - 5} more" if len(changed) > 5 else ""
        raise ValueError(
            f"{folder} contains a run with other settings: {'; '.join(changed[:5])}{more}. Choose another "
            "checkpoint.save_dir, or continue that run with the changed settings: --resume"
        )


def with_current_names(section: Any) -> Any:
    """A project under the keys of this version, so that a run of the version before can be resumed."""
    if not isinstance(section, Mapping):
        return section
    name: Any = section.get("_name")
    config = next((kind[name].config for kind in registry.REGISTRIES if name in kind), object)
    renamed = registry.with_new_names(config, section, str(name))
    return {key: with_current_names(value) for key, value in renamed.items()}


def check_restart(project: Mapping[str, Any], *, requeued: bool) -> None:
    """ValueError if a restart would load checkpoint.restore_file again, and so lose the training since then.

    A job (`requeued`) may be restarted at any time; for other runs it matters once there is a checkpoint.
    """
    section = project["checkpoint"]
    restored = section.get("restore_file") or LAST
    if restored == LAST or not (requeued or (Path(section["save_dir"]) / LAST).exists()):
        return
    raise ValueError(
        f"checkpoint.restore_file={restored} is loaded at every start, so a restarted run would lose its training. "
        "To start from its weights, use checkpoint.finetune_from_model; to continue its run, copy it to "
        f"{section['save_dir']}/{LAST}"
    )


def starting_point(section: Mapping[str, Any]) -> Path | None:
    """The file that fairseq starts a run from, by the project's section `checkpoint`; None if from new weights."""
    last, restored = Path(section["save_dir"]) / LAST, section.get("restore_file") or LAST
    if restored != LAST:
        return Path(restored)
    if last.exists():
        return last
    return Path(section["finetune_from_model"]) if section.get("finetune_from_model") else None


def check_starting_point(section: Mapping[str, Any]) -> None:
    """ValueError unless the checkpoint of another run, from which this one starts, is there and has finite weights."""
    path = starting_point(section)
    if path is None or path == Path(section["save_dir"]) / LAST:
        return
    content = read_torch_file(path)
    weights = content.get("model")
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f"{path} is not the checkpoint of a training: it has no weights under 'model'")
    check_weights(weights, where=str(path))
    if path == Path(section.get("restore_file") or LAST):  # only then is the optimizer restored too
        check_optimizer_state(content.get("last_optimizer_state"), where=str(path))


def check_optimizer_state(state: Any, *, where: str) -> None:
    """ValueError unless this is the state of an optimizer, with finite numbers; None if it was not saved."""
    try:
        groups, moments = (state["param_groups"], state["state"]) if state is not None else ([], {})
        settings = [group[key] for group in groups for key in ("lr", "eps", "weight_decay") if key in group]
        settings += [value for group in groups for value in (*group.get("betas", ()), len(group["params"]))]
        tensors = {
            f"{number}.{name}": value
            for number, values in moments.items()
            for name, value in values.items()
            if not isinstance(value, int | float)
        }
    except (KeyError, TypeError, AttributeError) as error:
        raise ValueError(f"{where} has a damaged state of the optimizer: {error!r}") from error
    if wrong := [value for value in settings if not isinstance(value, int | float)]:
        raise ValueError(f"{where} has a damaged state of the optimizer: {shortened(wrong[0])} is not a number")
    check_weights(tensors, where=f"{where}, the state of the optimizer")


def differences(before: Settings, now: Settings) -> Iterator[str]:
    """A line for each setting that has changed, except those that do not affect the training."""
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key) and not BOOKKEEPING.match(key):
            yield f"{key} is {now.get(key)}, was {before.get(key)}"


def finished(folder: Path, *, max_epoch: int, max_update: int) -> str | None:
    """`13 epochs, 195 updates` if the last checkpoint is from the end of the run; None if training is left.

    Also None for an unreadable checkpoint, which fairseq handles.
    """
    path = folder / LAST
    if not path.is_file():
        return None
    try:
        state = read_torch_file(path, mmap=True)
        next_epoch = int(state["extra_state"]["train_iterator"]["epoch"])
        updates = int(state["optimizer_history"][-1]["num_updates"])
    except (ValueError, KeyError, IndexError, TypeError):
        return None
    if 0 < max_epoch < next_epoch or 0 < max_update <= updates:
        return f"{next_epoch - 1} epochs, {updates} updates"
    return None


def write_project(project: Mapping[str, Any]) -> None:
    """Write the project as YAML to its `checkpoint.save_dir`, which is created if needed."""
    folder = Path(project["checkpoint"]["save_dir"])
    folder.mkdir(parents=True, exist_ok=True)
    text = yaml.safe_dump(dict(project), sort_keys=False)
    atomic_write(folder / PROJECT, lambda path: path.write_text(text, encoding="utf-8"))
