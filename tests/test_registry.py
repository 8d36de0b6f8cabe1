"""Names, typed configs, and components from outside."""

import importlib
import sys
from dataclasses import dataclass
from typing import ClassVar

import pytest

from mmpt_plugin import registry
from mmpt_plugin.registry import Registry, load_entry_points
from mmpt_plugin.samplers import Uniform


@dataclass(kw_only=True)
class ThingConfig:
    size: int = 3
    name: str | None = None


@pytest.fixture
def things():
    made = Registry("thing")

    @made.register("box", dataclass=ThingConfig)
    class Box:
        def __init__(self, config):
            self.config = config

    return made


def test_a_component_is_built_from_its_yaml_section(things):
    assert things.build({"_name": "box", "size": 5}).config == ThingConfig(size=5)


def test_an_unknown_name_is_answered_with_the_nearest(things):
    with pytest.raises(ValueError, match=r"no thing 'bux'. Did you mean 'box'\? Possible: \['box'\]"):
        things["bux"]


def test_unknown_and_mistyped_keys_are_refused(things):
    with pytest.raises(ValueError, match=r"no key 'box.siz'. Did you mean 'size'\?"):
        things.build({"_name": "box", "siz": 5})
    with pytest.raises(ValueError, match=r"box.size: Value 'big' of type 'str' could not be converted to Integer"):
        things.build({"_name": "box", "size": "big"})


def test_a_null_unsets_a_key(things):
    assert things.build({"_name": "box", "size": None, "gone": None}).config.size == 3


def test_two_classes_of_one_name_are_refused(things):
    class Other:
        pass

    with pytest.raises(ValueError, match="thing 'box' is already registered"):
        things.register("box", dataclass=ThingConfig)(Other)


def test_subscribers_hear_of_what_is_there_and_of_what_comes(things):
    heard = []
    things.subscribe(lambda entry: heard.append(entry.name))

    @things.register("bag", dataclass=ThingConfig)
    class Bag:
        pass

    assert heard == ["box", "bag"]


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A package on the path that announces a criterion through an entry point."""

    def install(code: str) -> None:
        (tmp_path / "announced_plugin.py").write_text(code)
        info = tmp_path / "announced_plugin-1.dist-info"
        info.mkdir()
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: announced_plugin\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[mmpt_plugin.components]\nannounced = announced_plugin\n")
        monkeypatch.syspath_prepend(str(tmp_path))
        monkeypatch.delitem(sys.modules, "announced_plugin", raising=False)
        importlib.invalidate_caches()
        load_entry_points.cache_clear()

    yield install
    load_entry_points.cache_clear()


def test_an_installed_packages_components_are_found(installed):
    installed(
        "from dataclasses import dataclass\nfrom mmpt_plugin.registry import register_criterion\n"
        "@dataclass(kw_only=True)\nclass C:\n    announced_margin: float = 1.0\n"
        "@register_criterion('announced', dataclass=C)\nclass Announced:\n    def __init__(self, config): pass\n"
        "    def __call__(self, video, text): return 0\n"
    )
    assert "announced" in list(registry.criterions)
    del registry.criterions._entries["announced"]


def test_an_installed_package_that_fails_is_named(installed):
    installed("raise RuntimeError('no licence')")
    with pytest.raises(ImportError, match=r"entry point 'announced = announced_plugin' .* failed: no licence"):
        list(registry.criterions)


@dataclass(kw_only=True)
class RenamedConfig:
    neighbors: int = 3

    RENAMED: ClassVar[dict[str, str]] = {"neighbours": "neighbors", "normalise": "model.normalize"}


def test_a_renamed_key_works_with_a_warning_and_one_that_another_section_owns_is_refused(caplog):
    registry = Registry("sampler")
    registry.register("nearest", dataclass=RenamedConfig)(type("Nearest", (Uniform,), {}))
    assert registry["nearest"].parse({"neighbours": 5}).neighbors == 5
    assert "nearest.neighbours is now nearest.neighbors" in caplog.text
    with pytest.raises(ValueError, match=r"nearest.normalise was removed: set model.normalize instead"):
        registry["nearest"].parse({"normalise": True})
