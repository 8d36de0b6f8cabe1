"""Imports point down the tree, never up or in a circle, and each heavy dependency has one home."""

import ast
import importlib
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from mmpt_plugin import moved, registry

PACKAGE = Path(__file__).parents[1] / "mmpt_plugin"

LEVELS = [
    {"cli"},
    {"reference"},
    {"launch", "search", "report", "fairseq_bridge"},
    {"tasks"},
    {"samplers", "datasets", "models", "criterions", "metrics", "toy_kitchen"},
    {"corpora", "index", "shards", "features"},
    {"video", "tokenizer", "conformance", "protocols"},
    {"batch"},
    {"checkpoint", "files", "distributed", "config", "yaml_files", "signals", "hardware"},
    {"registry", "moved"},
    {"errors", "interpolations", "terminal", "user_dir"},
]

HOMES = {
    "fairseq": ("fairseq_bridge/",),
    "fairseq_cli": ("fairseq_bridge/",),
    "faiss": ("index/",),
    "transformers": ("models/", "tokenizer.py", "features/clip.py"),
    "av": ("video/decode.py", "video/hwaccel.py", "video/write.py"),
    "lancedb": ("search/stores/lance.py",),
    "pyarrow": ("search/stores/lance.py",),
    "pymilvus": ("search/stores/milvus.py",),
    "starlette": ("search/server.py",),
    "uvicorn": ("search/server.py",),
    "submitit": ("launch/", "cli/launch.py"),
    "matplotlib": ("report/curve.py",),
    "efficientnet_lite_pytorch": ("features/efficientnet.py",),
}

FILES = {str(path.relative_to(PACKAGE)): path for path in sorted(PACKAGE.rglob("*.py")) if path.parent != PACKAGE / ""}
FILES |= {path.name: path for path in PACKAGE.glob("*.py") if path.name != "__init__.py"}


def imported(path: Path) -> set[str]:
    """The modules that a file imports when it runs: what only a type checker reads does not count."""
    tree = ast.parse(path.read_text())
    for node in ast.walk(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            node.body = []
    names = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level(part: str) -> int:
    return next(number for number, parts in enumerate(LEVELS) if part in parts)


def parts(path: Path) -> set[str]:
    """The parts of the package that a file imports."""
    names = (name.split(".") for name in imported(path))
    return {
        rest[0] for package, *rest in names if package == "mmpt_plugin" and rest and any(rest[0] in p for p in LEVELS)
    }


def test_every_part_has_a_level():
    present = {name.split("/")[0].removesuffix(".py") for name in FILES}
    assert present <= set().union(*LEVELS)


def test_imports_point_down():
    upward = [
        f"{place} imports {part}"
        for place, path in FILES.items()
        for part in parts(path)
        if level(part) < level(place.split("/")[0].removesuffix(".py"))
    ]
    assert not upward


def test_parts_do_not_import_in_a_circle():
    graph: dict[str, set[str]] = {}
    for place, path in FILES.items():
        own = place.split("/")[0].removesuffix(".py")
        graph.setdefault(own, set()).update(parts(path) - {own})
    while leaves := {part for part, needs in graph.items() if not needs & graph.keys()}:
        graph = {part: needs for part, needs in graph.items() if part not in leaves}
    assert not graph


def test_heavy_dependencies_stay_at_home():
    away = [
        f"{place} imports {name}, whose home is {HOMES[name.split('.')[0]]}"
        for place, path in FILES.items()
        for name in imported(path)
        if not place.startswith(HOMES.get(name.split(".")[0], (place,)))
    ]
    assert not away


def test_the_registry_knows_where_each_built_in_component_is():
    """Its table, which lists names without importing anything, is what the decorators say."""
    decorated: dict[str, dict[str, str]] = {}
    for place, path in FILES.items():
        for kind, name in re.findall(r"^@register_(\w+)\(\"(\w+)\"", path.read_text(), re.M):
            if kind in ("optimizer", "lr_scheduler"):  # fairseq's own
                continue
            decorated.setdefault(kind, {})[name] = place.removesuffix(".py").replace("/", ".")
    assert decorated == registry.BUILT_IN


@pytest.mark.parametrize(
    ("code", "absent"),
    [
        ("import mmpt_plugin, mmpt_plugin.registry, mmpt_plugin.cli", ["torch", "numpy", "omegaconf", "hydra", "yaml"]),
        ("from mmpt_plugin.cli import main; main(['list'])", ["torch", "numpy", "omegaconf", "hydra", "yaml"]),
        ("from mmpt_plugin import register_model, register_corpus", ["torch", "numpy", "omegaconf"]),
        (
            # What `mmpt evaluate` imports to rank clips by features.
            "from mmpt_plugin.report import has_timelines\nfrom mmpt_plugin.tasks import evaluate, retrieval\n"
            "from mmpt_plugin.corpora import jsonl",
            ["av", "matplotlib", "faiss", "fairseq"],
        ),
        (
            "from mmpt_plugin import VideoCLIP, load_model",
            [
                "av",
                "faiss",
                "fairseq",
                "hydra",
                "matplotlib",
                "rich",
                "transformers.models.clip.modeling_clip",
            ],
        ),
    ],
)
def test_what_an_import_may_load(code, absent):
    """Every command, worker and restart pays for what is imported."""
    check = f"{code}\nimport sys\nprint([name for name in {absent} if name in sys.modules], file=sys.stderr)"
    done = subprocess.run([sys.executable, "-c", check], text=True, capture_output=True, check=True)
    assert done.stderr.strip() == "[]"


def test_old_import_paths_work_with_a_warning():
    """Of version 0.1, for one version."""
    check = """
import warnings
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    from mmpt_plugin.clips.batch import Batch
    from mmpt_plugin.clips.captions import load_tokenizer, read_captions
    from mmpt_plugin.datasets import MSRVTT
    from mmpt_plugin.datasets.toy_kitchen import generate
    from mmpt_plugin.features.shards import Shards, ShardWriter
    from mmpt_plugin.models import Clip2Video, ClipModel, ClipModelConfig
    from mmpt_plugin.models.clip_mean import ClipMean
import mmpt_plugin.batch, mmpt_plugin.models
assert Batch is mmpt_plugin.batch.Batch and Clip2Video is mmpt_plugin.models.CLIP2Video
print("\\n".join(str(one.message) for one in said))
"""
    done = subprocess.run([sys.executable, "-c", check], text=True, capture_output=True, check=True)
    assert (
        "mmpt_plugin.clips.batch.Batch is now mmpt_plugin.batch.Batch; the old name works for one version"
        in done.stdout
    )
    assert "mmpt_plugin.clips.captions.load_tokenizer is now mmpt_plugin.tokenizer.load_tokenizer" in done.stdout
    assert "mmpt_plugin.models.clip_mean.ClipMean is now mmpt_plugin.models.CLIPMean" in done.stdout


def test_no_exported_name_is_that_of_a_module_of_its_package():
    """Importing the module would put it in the place of what is exported."""
    for stub in PACKAGE.rglob("__init__.pyi"):
        exported = re.findall(r"^from \.[\w.]+ import (\w+)", stub.read_text(), re.M)
        assert not [name for name in exported if (stub.parent / f"{name}.py").exists()], stub


def test_everything_moved_is_where_the_tables_say():
    for old, place in moved.RENAMED.items():
        (there, was), (module, name) = old.rpartition(".")[::2], place.rpartition(".")[::2]
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            before = getattr(importlib.import_module(f"mmpt_plugin.{there}"), was)
        assert before is getattr(importlib.import_module(f"mmpt_plugin.{module}"), name)
    for places in moved.MOVED.values():
        for place in places:
            file = PACKAGE / place.replace(".", "/")
            assert file.with_suffix(".py").is_file() or (file / "__init__.py").is_file(), place
