"""What the reference says of every key, command and public name is read from the code, and nothing is left out."""

import argparse
import importlib.util
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from mmpt_plugin import reference, registry
from mmpt_plugin.cli import parser
from mmpt_plugin.reference import configuration, pages
from tests.conftest import ROOT


@pytest.fixture
def without(monkeypatch):
    """Hide an installed package."""
    find_spec = importlib.util.find_spec

    def hide(package):
        monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find_spec(name))

    return hide


@dataclass(kw_only=True)
class Inner:
    """What is inside."""

    depth: int
    """How deep."""


@dataclass(kw_only=True)
class Outer:
    """What is outside."""

    size: int = 3
    """Pixels of
    a side."""
    weight: float = 1.0  # kilograms: a comment is not documentation
    inner: Inner | None = None
    """Another one."""


@dataclass(kw_only=True)
class Wider(Outer):
    size: int = 5
    names: list[str] = field(default_factory=lambda: ["a", "b"])
    """Of all."""


def test_every_key_of_every_component_is_documented():
    found = reference.keys()
    undocumented = {f"{key.path} ({key.kind} {key.component})" for key in found if not key.doc}
    assert not undocumented, f"no docstring after the field of {sorted(undocumented)}"


def test_every_component_is_documented():
    undocumented = [f"{kind} {entry.name}" for kind, entry in configuration.components() if not entry.cls.__doc__]
    undocumented += [
        entry.config.__name__
        for _, entry in configuration.components()
        if not configuration.own_doc(entry.config) and entry.config.__module__.startswith("mmpt_plugin")
    ]
    assert not undocumented


def test_a_key_has_the_docstring_type_and_default_of_its_field():
    found = {key.path: key for key in configuration.keys_of(Wider, "thing", "thing", "box")}
    assert list(found) == ["thing.size", "thing.weight", "thing.inner", "thing.inner.depth", "thing.names"]
    assert found["thing.size"] == reference.Key("thing.size", "int", "5", "Pixels of a side.", "thing", "box")
    assert found["thing.weight"].doc == ""
    assert (found["thing.inner"].type, found["thing.inner"].default) == ("mapping or null", "null")
    assert (found["thing.inner.depth"].default, found["thing.inner.depth"].doc) == ("required", "How deep.")
    assert (found["thing.names"].type, found["thing.names"].default) == ("list of str", "[a, b]")


@pytest.mark.parametrize(
    ("hint", "name"),
    [
        (Any, "any"),
        (dict[str, Any], "mapping"),
        (Literal["a", "b"] | None, "a or b or null"),
        (int | str, "int or str"),
    ],
)
def test_types_are_named_for_readers_of_yaml(hint, name):
    assert configuration.type_name(hint) == name


def test_a_key_is_described_by_its_path():
    text = reference.describe("criterion.temperature")
    assert "criterion.temperature (float, default 1.0)\n    (criterion nce)" in text
    assert "criterion.temperature (float, default 0.07)\n    (criterion best_fit_nce, mil_nce)" in text
    assert "VideoCLIP does not scale them" in text
    assert "optimization" not in text


def test_a_shared_name_lists_every_component_that_has_it():
    text = reference.describe("max_video_len")
    for line in ("model.max_video_len (int, default 32)", "model.max_video_len (int, default 12)"):
        assert line in text
    assert "task.dataset.max_video_len" in text
    assert "(model videoclip, videoclip_segmenter, videoclip_step_localizer)" in text


def test_a_component_is_described_with_all_its_keys():
    text = reference.describe("sigmoid")
    assert text.startswith("criterion sigmoid\n\n    Binary cross entropy")
    for key in ("temperature", "bias"):
        assert f"criterion.{key} (" in text


def test_a_section_lists_its_components():
    head, *lines = reference.describe("sampler").partition("\n\n")[0].splitlines()
    assert head == "sampler._name is one of"
    assert {line.split()[0] for line in lines} == set(registry.samplers)
    assert reference.describe("model._name") == reference.describe("model")


@pytest.mark.parametrize(
    ("query", "path"),
    [
        ("task.dataset.splits.train.annotations", "task.dataset.annotations"),
        ("task.finetune.dataset.splits.valid.frames.size", "task.dataset.frames.size"),
        ("task.sampler.cover", "sampler.cover"),
    ],
)
def test_other_ways_to_a_key_lead_to_it(query, path):
    assert reference.describe(query) == reference.describe(path)


def test_an_old_name_leads_to_the_new_one():
    text = reference.describe("criterion.l2_normalize")
    assert text == f"criterion.l2_normalize is now model.normalize\n\n{reference.describe('model.normalize')}"


def test_a_key_that_is_a_section_lists_its_components_too():
    text = reference.describe("task.dataset")
    assert text.startswith("task.dataset (mapping, default {})")
    assert "\n\ntask.dataset._name is one of\n" in text


def test_a_misspelt_key_is_answered_with_the_closest():
    with pytest.raises(ValueError, match=r"^no key 'model.hiden_size'. Did you mean 'model.hidden_size'\?"):
        reference.describe("model.hiden_size")
    with pytest.raises(ValueError, match=r"^no key 'temprature'. Did you mean 'temperature'\?"):
        reference.describe("temprature")
    with pytest.raises(ValueError, match=r"^no key 'COIN'. Did you mean 'coin'\?"):
        reference.describe("COIN")


@pytest.mark.fairseq
def test_a_key_of_fairseq_is_described_in_its_own_words():
    pytest.importorskip("fairseq")
    text = reference.describe("optimization.clip_norm")
    assert text == "optimization.clip_norm (float, default 0.0)\n    (fairseq)\n    clip threshold of gradients"
    assert "optimizer.backbone_lr (float, default 1.0e-07)" in reference.describe("backbone_lr")
    assert "optimizer.backbone_lr" in reference.describe("adam_with_backbone")
    assert "lr_scheduler.warmup_fraction" in reference.configuration_page()


def test_without_fairseq_its_keys_are_said_to_be_its_own(without):
    without("fairseq")
    assert reference.fairseq_keys() == []
    assert "https://fairseq.readthedocs.io" in reference.describe("optimization.clip_norm")
    assert "https://fairseq.readthedocs.io" in reference.configuration_page()


def test_without_submitit_the_keys_of_a_profile_say_what_to_install(without):
    without("submitit")
    assert "pip install 'mmpt_plugin[slurm]'" in reference.describe("slurm.nodes")


def test_the_overview_names_every_section_and_component():
    text = reference.overview()
    for kind, entry in configuration.components():
        assert configuration.SECTIONS[kind] in text
        assert entry.name in text


def test_the_configuration_page_has_every_key_of_every_component():
    lines = reference.configuration_page().splitlines()
    for kind, entry in configuration.components():
        start = lines.index(f"### {entry.name}", lines.index(f"## {kind}"))
        table = lines[
            start : next(i for i, line in enumerate([*lines, "#"][start + 1 :], start + 1) if line[:1] == "#")
        ]
        for key in configuration.keys_of(entry.config, configuration.SECTIONS[kind], kind, entry.name):
            assert sum(line.startswith(f"| `{key.path}` |") for line in table) == 1, f"{key.path} of {entry.name}"


def test_the_command_page_has_every_command_and_argument():
    page = reference.command_page(parser())
    commands = next(a for a in parser()._actions if isinstance(a, argparse._SubParsersAction)).choices
    assert len(commands) > 10
    for name, command in commands.items():
        section = page.partition(f"\n## mmpt {name}\n")[2].partition("\n## ")[0]
        for action in command._actions:
            for word in action.option_strings or [str(action.metavar or action.dest)]:
                assert word in section or action.dest == "help", f"{word} of mmpt {name}"


def test_the_command_page_is_as_wide_on_every_terminal(monkeypatch):
    monkeypatch.setenv("COLUMNS", "40")
    narrow = reference.command_page(parser())
    monkeypatch.setenv("COLUMNS", "200")
    assert reference.command_page(parser()) == narrow


def test_a_cell_keeps_its_table_whole():
    assert pages.cell("a | b < c,\n`d|e<f>`") == r"a \| b &lt; c, `d|e<f>`"


def test_the_site_has_the_reference_pages():
    files = pytest.importorskip("mkdocs.structure.files")
    config = pytest.importorskip("mkdocs.config.defaults").MkDocsConfig()
    config.load_dict({"site_name": "site", "plugins": [], "hooks": [str(ROOT / "docs" / "hooks.py")]})
    assert config.validate() == ([], [])
    found = config.plugins.on_files(files.Files([]), config=config)
    assert {file.src_uri for file in found} == {f"reference/{name}.md" for name in ("cli", "configuration")}
