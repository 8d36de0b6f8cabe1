"""Import paths of version 0.1. They work for one version, with a DeprecationWarning that names the new path."""

import importlib
import importlib.machinery
import sys
import types
import warnings
from collections.abc import Callable
from typing import Any

CORPORA = (
    "coin", "corpus", "crosstask", "didemo", "jsonl", "labelled_videos", "msrvtt", "msvd", "segments", "vatex",
    "youcook2",
)  # fmt: skip
TOY_KITCHEN = ("drawing", "generate", "narration", "recipes", "sprites")

CLASSES = {
    "clip.ClipModel": "CLIPModel",
    "clip.ClipModelConfig": "CLIPModelConfig",
    "clip2video.Clip2Video": "CLIP2Video",
    "clip2video.Clip2VideoConfig": "CLIP2VideoConfig",
    "clip_mean.ClipMean": "CLIPMean",
}
"""Old class, with its module below mmpt_plugin.models -> its name now."""

MOVED: dict[str, tuple[str, ...]] = {
    "clips": (),
    "clips.batch": ("batch",),
    "clips.captions": ("shards.captions", "tokenizer"),
    "clips.deduplicate": ("shards.deduplicate",),
    "clips.mmpt_shards": ("shards.mmpt_shards",),
    "clips.plain_pickle": ("shards.plain_pickle",),
    "clips.prepare": ("shards.make",),
    "clips.rolling": ("shards.rolling",),
    "clips.sampling": ("datasets.clip_sampling",),
    "clips.sources": ("shards.caption_sources",),
    **{f"datasets.{name}": (f"corpora.{name}",) for name in CORPORA},
    "datasets.toy_kitchen": ("toy_kitchen",),
    **{f"datasets.toy_kitchen.{name}": (f"toy_kitchen.{name}",) for name in TOY_KITCHEN},
    "doctor": ("cli.doctor", "hardware"),
    "fairseq_bridge.resuming": ("fairseq_bridge.preemption",),
    "fairseq_bridge.stopping": ("fairseq_bridge.preemption",),
    "features.cache_frames": ("video.cache_frames",),
    "features.encoder": ("protocols",),
    "features.frame_cache": ("video.frame_cache",),
    "features.frames": ("video.sparse_frames",),
    "features.origin": ("video.origin",),
    "features.shards": ("shards.format", "shards.writer"),
    "features.video": ("video.decode", "video.write"),
    "features.video_folder": ("video.store",),
    "features.workers": ("video.workers",),
    "samplers.saved": ("samplers.epoch_plan",),
    "tasks.running_means": ("samplers.dataset_embeddings",),
}
"""Old module -> modules of mmpt_plugin that define its names now."""

RENAMED = {
    **{f"models.{old}": f"models.{new}" for old, new in CLASSES.items()},
    **{f"models.{old.partition('.')[2]}": f"models.{new}" for old, new in CLASSES.items()},
    "checkpoint.first_line": "errors.first_line",
    "checkpoint.write_whole": "files.atomic_write",
    "config.fine_tuned": "tasks.finetuning.fine_tuned",
    **{
        f"features.files.{name}": f"files.{name}" for name in ("absolute", "files_below", "read_list", "without_suffix")
    },
    "registry.unknown": "errors.unknown_name",
    "tasks.pretraining.embed_videos": "samplers.dataset_embeddings.embed_dataset",
}
"""Old name -> where it is now, for modules that stayed where they were; each has `attributes` as its `__getattr__`."""

PACKAGE = "mmpt_plugin."


def attributes(module: str, otherwise: Callable[[str], Any] | None = None) -> Callable[[str], Any]:
    """The `__getattr__` of a module that did not move, for the names that it had in version 0.1.

    Other names are looked up with `otherwise`, the module's own `__getattr__`.
    """

    def look_up(name: str) -> Any:
        old = f"{module.removeprefix(PACKAGE)}.{name}"
        if old in RENAMED:
            return found(RENAMED[old], f"{module}.{name}")
        if module == f"{PACKAGE}datasets" and name in importlib.import_module(f"{PACKAGE}corpora").__all__:
            return found(f"corpora.{name}", f"{module}.{name}")
        if otherwise is not None:
            return otherwise(name)
        raise AttributeError(f"module '{module}' has no attribute '{name}'")

    return look_up


def found(place: str, old: str) -> Any:
    """Import the object at `place`, with a warning that `old` is deprecated."""
    warnings.warn(f"{old} is now {PACKAGE}{place}; the old name works for one version", DeprecationWarning, 3)
    module, _, name = place.rpartition(".")
    return getattr(importlib.import_module(PACKAGE + module), name)


class MovedModules:
    """A finder and loader of the old modules, which look up their names in the new ones."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        """See `importlib.abc.MetaPathFinder`."""
        if name.removeprefix(PACKAGE) not in MOVED or not name.startswith(PACKAGE):
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)  # type: ignore[arg-type]

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> None:
        """See `importlib.abc.Loader`."""
        return None

    def exec_module(self, module: types.ModuleType) -> None:
        """See `importlib.abc.Loader`."""
        places = MOVED[module.__name__.removeprefix(PACKAGE)]

        def look_up(name: str) -> Any:
            for place in places:
                if hasattr(importlib.import_module(PACKAGE + place), name):
                    return found(f"{place}.{name}", f"{module.__name__}.{name}")
            raise AttributeError(f"module '{module.__name__}' has no attribute '{name}'")

        module.__getattr__ = look_up  # type: ignore[method-assign]


def install_finder() -> None:
    """Make the old modules importable; repeated calls have no effect."""
    if not any(isinstance(finder, MovedModules) for finder in sys.meta_path):
        sys.meta_path.append(MovedModules())  # type: ignore[arg-type]
