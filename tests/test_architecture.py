"""Imports point down the tree, never up, and each heavy dependency has one home (docs/explanation/architecture.md)."""

import ast
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[1] / "mmpt_plugin"

LEVELS = [
    {"cli"},
    {"launch", "search", "report", "fairseq_bridge", "doctor"},
    {"tasks"},
    {"samplers", "datasets", "models", "criterions", "metrics"},
    {"index", "clips", "features"},
    {"checkpoint", "distributed", "config", "signals"},
    {"registry"},
]

HOMES = {
    "fairseq": ("fairseq_bridge/",),
    "fairseq_cli": ("fairseq_bridge/",),
    "faiss": ("index/",),
    "transformers": ("models/", "clips/captions.py", "features/clip.py"),
    "av": ("features/video.py",),
    "submitit": ("launch/",),
    "matplotlib": ("report/curve.py",),
    "efficientnet_lite_pytorch": ("features/efficientnet.py",),
}

FILES = sorted(PACKAGE.rglob("*.py"))


def imported(path: Path) -> set[str]:
    names = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: imports are absolute"
            names.add(node.module)
            names |= {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def level(part: str) -> int:
    return next(i for i, parts in enumerate(LEVELS) if part in parts)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_point_down(path):
    place = path.relative_to(PACKAGE)
    part = place.parts[0].removesuffix(".py")
    if part == "__init__":
        return
    for name in imported(path):
        package, *rest = name.split(".")
        if package == "mmpt_plugin" and rest and any(rest[0] in parts for parts in LEVELS):
            assert level(rest[0]) >= level(part), f"{place} imports {name}, which stands above it"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_heavy_dependencies_stay_at_home(path):
    place = str(path.relative_to(PACKAGE))
    for name in imported(path):
        for home in HOMES.get(name.split(".")[0], (place,)):
            if place.startswith(home):
                break
        else:
            pytest.fail(f"{place} imports {name}, whose home is {HOMES[name.split('.')[0]]}")


def test_every_part_has_a_level():
    parts = {
        p.name.removesuffix(".py") for p in PACKAGE.iterdir() if p.suffix == ".py" or (p / "__init__.py").is_file()
    }
    assert parts - {"__init__"} <= set().union(*LEVELS)
