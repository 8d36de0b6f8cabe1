"""Read YAML files, which may be a stranger's: plain values only, of a limited size."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmpt_plugin.errors import HALF_PAIR
from mmpt_plugin.interpolations import CHARACTERS, DEPTH

if TYPE_CHECKING:
    from omegaconf import DictConfig

VALUES = 10**5
SECTIONS = {"task", "model", "criterion", "sampler", "dataset", "common", "optimization", "optimizer", "lr_scheduler"}
SECTIONS |= {"distributed_training", "task.dataset", "task.finetune", "task.finetune.dataset", "task.benchmark"}


def read_yaml(path: Path) -> Any:
    """The content of a YAML file, None for an empty one.

    ValueError, with the path and the line, for other text than plain YAML, and for more than a mebibyte of it, 100,000
    values, counted as often as aliases repeat them, or a depth of 50.
    """
    from mmpt_plugin.files import read_text  # with NumPy, which `mmpt list` does not need

    return parse_yaml(read_text(path), str(path))


def parse_yaml(text: str, where: str) -> Any:
    """The value of YAML text, with the limits of `read_yaml`; ValueError, which names the location `where`."""
    import yaml

    if len(text) > CHARACTERS:
        raise ValueError(f"{where} has {len(text)} characters, expected at most {CHARACTERS}")
    try:
        content = yaml.safe_load(text)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f":{mark.line + 1}" if mark and "\n" in text else ""
        raise ValueError(f"{where}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from error
    except RecursionError:
        raise ValueError(f"{where}: not valid YAML: it is nested too deep") from None
    except (ValueError, TypeError, OverflowError) as error:  # of values such as 2026-13-40
        reason = "an integer has too many digits" if str(error).startswith("Exceeds the limit") else error
        raise ValueError(f"{where}: not valid YAML: {reason}") from error
    if number_of_values(content, where, {}) > VALUES:
        raise ValueError(f"{where} has more than {VALUES} values")
    return content


def number_of_values(value: Any, where: str, counted: dict[int, int], depth: int = 0) -> int:
    """The number of values in nested lists and mappings, in which aliases may repeat the same one many times."""
    if isinstance(value, str) and not value.isascii():
        try:
            value.encode(errors="surrogateescape")  # also the name of a file that is not in UTF-8
        except UnicodeEncodeError:
            raise ValueError(f"{where}: not valid YAML: it has {HALF_PAIR}") from None
    if not isinstance(value, dict | list):
        return 1
    if depth > DEPTH:
        raise ValueError(f"{where} is nested more than {DEPTH} deep")
    if id(value) not in counted:
        parts = [*value, *value.values()] if isinstance(value, dict) else value
        counted[id(value)] = 1 + sum(number_of_values(part, where, counted, depth + 1) for part in parts)
    return counted[id(value)]


def check_sections(config: "DictConfig", project: str) -> None:
    """ValueError for a section of a project that is not one, such as `task: 3`."""
    from omegaconf import OmegaConf

    for section in SECTIONS:
        value = OmegaConf.select(config, section, throw_on_missing=False)
        if value is not None and not OmegaConf.is_dict(value):
            message = f"project '{project}': '{section}' must be a section, as in {section}.key=value, got {value!r}"
            raise ValueError(message[:300])
    folder = OmegaConf.select(config, "checkpoint.save_dir") if OmegaConf.is_dict(config.get("checkpoint")) else ""
    if not isinstance(folder, str):
        raise ValueError(f"project '{project}': checkpoint.save_dir must be a folder, got {folder!r}")
