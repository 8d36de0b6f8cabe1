"""Loading and saving models: folders of `save_pretrained`, fairseq checkpoints, and models on the hub."""

import typing
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any, TypeVar

from torch import Tensor

from mmpt_plugin import registry
from mmpt_plugin.batch import Batch
from mmpt_plugin.checkpoint import (
    check_weights,
    find_checkpoint,
    load_strictly,
    read_folder,
    read_torch_file,
    write_folder,
)
from mmpt_plugin.errors import shortened
from mmpt_plugin.models.embedding import Embedder
from mmpt_plugin.models.released import from_released, is_released
from mmpt_plugin.tokenizer import load_tokenizer, num_ids
from mmpt_plugin.yaml_files import parse_yaml

Model = TypeVar("Model", bound="PretrainedEmbedder")

# Keys that name the starting weights of training; a trained model does not need them.
STARTS = {"pretrained": None, "bert": None, "clip": None}

# Keys of one training that the next one does not inherit. A model on CLIP itself reads the backbone's sizes.
NOT_INHERITED = {*STARTS, "attend_to_cls", "backbone", "chunk_size", "freeze_layers", "freeze_vision"}


class PretrainedEmbedder(Embedder):
    """An embedder that can be saved to a folder and loaded again, with its tokenizer."""

    model_type: str
    """The name that the class is registered under."""
    config_type: type
    """The dataclass of its configuration."""
    batch_type: type = Batch
    """The type of batch that `forward` takes."""
    heads: tuple[str, ...] = ()
    """Prefixes of weights that a pre-trained checkpoint may lack."""
    sizes: tuple[str, ...] = ()
    """Keys of the config that starting weights determine."""
    of_the_machine: tuple[str, ...] = ()
    """Keys of the config that suit the machine of a training, not the model. A model that is loaded, or that training
    starts from, has their defaults."""

    @classmethod
    def registered_as(cls, name: str, config_type: type) -> None:
        """Set model_type and config_type, on registration."""
        if "model_type" not in vars(cls):
            cls.model_type = name
        if "config_type" not in vars(cls):
            cls.config_type = config_type

    @staticmethod
    def config_of(weights: Mapping[str, Tensor], *, where: str) -> dict[str, Any]:
        """The part of the configuration that follows from the weights; it overrides the file's configuration."""
        return {}

    @classmethod
    def start_settings(cls, model: Mapping[str, Any]) -> dict[str, Any]:
        """The settings of the starting weights of a project's section `model` that training from them inherits.

        {} without starting weights. Those that belong to one training, such as `chunk_size`, are left out.
        """
        if not model.get("pretrained"):
            return {}
        path = find_checkpoint(model["pretrained"])
        config, weights = read_checkpoint(path, max_video_len=model.get("max_video_len"))
        found = plain_values(cls.config_type, config | cls.config_of(weights, where=str(path)))
        left_out = {*NOT_INHERITED, *cls.of_the_machine}
        return {key: value for key, value in found.items() if value is not None and key not in left_out}

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model.safetensors, config.json and, if there is a tokenizer, its files.

        Files of the feature encoder are not copied. Their absolute paths are recorded, so the folder can be moved.
        """
        config = {"model_type": self.model_type, **asdict(self.config), **self.starts()}
        config["encoder"] = None if self.encoder is None else with_absolute_paths(self.encoder)

        def write_tokenizer(temporary: Path) -> None:
            if self.tokenizer is not None:
                self.tokenizer.save_pretrained(str(temporary))

        write_folder(Path(folder), config, self.state_dict(), more=write_tokenizer)

    @classmethod
    def starts(cls) -> dict[str, Any]:
        """The config's keys that name starting weights, all set to None, because a saved model does not need them."""
        known = {field.name for field in fields(cls.config_type)}
        return {key: value for key, value in STARTS.items() if key in known}

    @classmethod
    def from_pretrained(
        cls: type[Model],
        path: str | Path,
        *,
        tokenizer: str | Path | None = None,
        encoder: str | Mapping[str, Any] | None = None,
        **settings: Any,
    ) -> Model:
        """Load a model, in eval mode, from a folder that `save_pretrained` wrote, a hub name or a fairseq checkpoint.

        Most of the configuration follows from the shapes of the weights; `settings` (num_attention_heads,
        max_video_len, max_text_len, dropout, cls_token_id) override the file's values for the rest. Missing or
        unexpected weights, or weights of the wrong shape, are a ValueError. `tokenizer` is a hub name or folder, for
        fairseq checkpoints, which contain none; the released VideoCLIP needs bert-base-uncased. `encoder` is the
        feature encoder that `embed_videos` uses.
        """
        if not isinstance(encoder, str | Mapping | None):
            raise ValueError(f"encoder must be a name or a mapping with _name, got {shortened(encoder)}")
        path = find_checkpoint(path)
        config, weights = read_checkpoint(path, max_video_len=settings.get("max_video_len"))
        named: Any = registry.models[model_name(config, where=str(path))].cls
        if issubclass(named, cls):
            cls = named
        elif cls is PretrainedEmbedder:
            raise ValueError(
                f"{path} contains a {named.__module__}.{named.__qualname__}, which can't be loaded: it has no "
                "from_pretrained, derive it from PretrainedEmbedder"
            )
        elif not issubclass(cls, named):
            raise ValueError(f"{path} contains a '{named.model_type}', not a '{cls.model_type}': load_model reads both")
        known = {field.name for field in fields(cls.config_type)}
        if unknown := set(settings) - known:
            raise ValueError(f"no setting {sorted(unknown)}. Possible: {sorted(known)}")
        config = {key: value for key, value in config.items() if key not in cls.of_the_machine}
        values = config | cls.config_of(weights, where=str(path)) | settings | cls.starts()
        try:
            model = cls(registry.parse_config(cls.config_type, plain_values(cls.config_type, values), "model"))
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        load_strictly(model, weights, where=str(path))
        model.encoder = {"_name": encoder} if isinstance(encoder, str) else dict(encoder or {}) or config.get("encoder")
        if model.encoder is not None and not (isinstance(model.encoder, dict) and "_name" in model.encoder):
            raise ValueError(f"{path}: encoder must be a section with _name, got {shortened(model.encoder)}")
        if tokenizer is None and (path / "tokenizer_config.json").is_file():
            tokenizer = path
        if tokenizer is not None:
            model.tokenizer = load_tokenizer(str(tokenizer))
            model.check_vocabulary(num_ids(model.tokenizer), where=f"tokenizer {tokenizer}")
        return model.eval()


def model_name(config: Mapping[str, Any], *, where: str) -> str:
    """The registered name of a checkpoint's model, VideoCLIP if it names none; ValueError for an unknown name."""
    name = str(config.get("_name") or config.get("model_type") or "mmarch")
    if name == "mmarch":  # in the original
        return "videoclip"
    if name not in registry.models:
        folder = config.get("user_dir")
        remedy = (
            f"it was trained with --user-dir {folder}"
            if folder
            else "import its module (--user-dir DIR), or install its package"
        )
        raise ValueError(f"{where} contains a model '{name}', which is not registered here: {remedy}")
    return name


def with_absolute_paths(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Settings in which the values that are existing files are absolute paths."""
    return {
        key: str(Path(value).resolve()) if key != "_name" and isinstance(value, str) and Path(value).exists() else value
        for key, value in settings.items()
    }


def load_model(path: str | Path, **options: Any) -> PretrainedEmbedder:
    """Load a model of the type that the file names, by default VideoCLIP; `options` are those of `from_pretrained`.

    Files of OpenAI's CLIP (also the TorchScript archive, whose code is not run), CLIP4Clip and CLIP2Video are
    recognized by the names of their weights.
    """
    return PretrainedEmbedder.from_pretrained(path, **options)


def plain_values(config_type: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """The values of known keys; parses mappings and lists, which fairseq stores as YAML strings."""
    hints = typing.get_type_hints(config_type)
    known = {key: value for key, value in values.items() if key in {field.name for field in fields(config_type)}}
    return {
        key: parse_yaml(value, f"model.{key}")
        if typing.get_origin(hints[key]) in (dict, list) and isinstance(value, str)
        else value
        for key, value in known.items()
    }


def read_checkpoint(path: Path, *, max_video_len: int | None = None) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The configuration and weights of a folder, a fairseq checkpoint or a released file.

    `max_video_len` is the number of positions that are read from CLIP4Clip's and CLIP2Video's files, which have more.
    """
    if path.is_dir():
        return read_folder(path)
    content = read_torch_file(path)
    if is_released(content):
        check_weights(content, where=str(path))
        return from_released(content, where=str(path), max_video_len=max_video_len)
    return from_fairseq(content, where=str(path))


def start_from_pretrained(model: PretrainedEmbedder, weights: Mapping[str, Tensor], *, where: str) -> None:
    """Load all weights of a checkpoint; heads that the checkpoint lacks keep their initial weights."""
    heads = {key: value for key, value in model.state_dict().items() if key.startswith(model.heads)}
    load_strictly(model, heads | dict(weights), where=where)


def from_fairseq(content: Mapping[str, Any], *, where: str) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The model's configuration and weights in a fairseq checkpoint: ours, or the released VideoCLIP's.

    The released checkpoint's weights have the prefix `mmmodel.`, ours `model.`. The released one also has pooling
    layers, which its model never uses, and position_ids, which are not weights; both are left out.
    """
    weights = content.get("model", content.get("state_dict", content))
    if not isinstance(weights, Mapping) or not all(isinstance(value, Tensor) for value in weights.values()):
        raise ValueError(f"{where} is not a VideoCLIP checkpoint: it has no weights under 'model'")
    check_weights(weights, where=where)
    prefix = next((p for p in ("mmmodel.", "model.") if all(key.startswith(p) for key in weights)), "")
    weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    weights = {
        key: value.float() if value.is_floating_point() else value
        for key, value in weights.items()
        if ".pooler." not in key and not key.endswith(".position_ids")
    }
    config, criterion = (config_section(content, name) for name in ("model", "criterion"))
    if criterion.get("l2_normalize") or (criterion.get("_name") == "sigmoid" and "normalize" not in config):
        config["normalize"] = True  # earlier, a setting of the criterion
    return config | {"user_dir": config_section(content, "common").get("user_dir")}, weights


def config_section(content: Mapping[str, Any], name: str) -> dict[str, Any]:
    """One section of the configuration in a fairseq checkpoint."""
    found = (content.get("cfg") or {}).get(name) or {}
    return dict(found) if isinstance(found, Mapping) else dict(vars(found))
