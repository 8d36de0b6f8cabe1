"""Composing projects: overrides and their values."""

import itertools
import logging

import pytest
from omegaconf import OmegaConf

from mmpt_plugin import registry
from mmpt_plugin.config import (
    available,
    component_keys,
    drop_other_keys,
    load_project,
    plain,
    root,
)

PATHS = (
    "it's", "Küche/動画", "a=b", "a,b", "a#b & c;d", 'say "hi"', "end\\", 'end\\"', "(x)", "x}", "100%", "C:\\runs",
)  # fmt: skip


@pytest.mark.parametrize("path", PATHS)
def test_a_path_may_have_any_characters(path):
    assert load_project("videoclip/toy_kitchen", [f"checkpoint.save_dir={path}"]).checkpoint.save_dir == path


def test_the_home_folder_is_expanded_which_shells_do_not_do_after_an_equals_sign(monkeypatch):
    monkeypatch.setenv("HOME", "/home/ana")
    assert load_project("videoclip/toy_kitchen", ["checkpoint.save_dir=~/runs"]).checkpoint.save_dir == "/home/ana/runs"


def test_numbers_lists_and_null_keep_their_types():
    overrides = ["optimization.lr=[0.1,2e-3]", "optimization.max_epoch=3", "sampler.cover=null", "model.dropout=0.5"]
    project = plain(load_project("videoclip/toy_kitchen", overrides))
    assert project["optimization"] == project["optimization"] | {"lr": [0.1, 2e-3], "max_epoch": 3}
    assert project["sampler"]["cover"] is None
    assert project["model"]["dropout"] == 0.5


def test_another_component_drops_the_settings_that_it_does_not_have(caplog):
    caplog.set_level(logging.INFO)
    project = plain(load_project("videoclip/toy_kitchen", ["sampler._name=uniform"]))
    assert project["sampler"] == {"_name": "uniform", "cluster_size": 16}
    assert "sampler._name=uniform does not use the project's sampler.num_neighbors, sampler.cover" in caplog.text


def test_an_overridden_setting_stays_so_that_a_wrong_one_is_an_error():
    words = ["sampler._name=uniform", "sampler.num_neighbors=8"]
    assert plain(load_project("videoclip/toy_kitchen", words))["sampler"]["num_neighbors"] == 8


def test_without_another_component_nothing_is_dropped():
    project = plain(load_project("videoclip/toy_kitchen", ["sampler.cover=false"]))
    assert project["sampler"] == {
        "_name": "retrieval_augmented", "num_neighbors": 32, "cluster_size": 16, "cover": False
    }  # fmt: skip


def components(section):
    """The names of a section's components, of which fairseq's have keys if they have a dataclass."""
    if section in registry.SECTIONS:
        return list(registry.SECTIONS[section])
    pytest.importorskip("fairseq")
    from mmpt_plugin.fairseq_bridge import install, options

    install()
    configs = options.REGISTRIES[section]["dataclass_registry"]
    return [name for name, config in configs.items() if config is not None]


def replaced(written, section, name):
    """A project in which the command line names another component."""
    config = OmegaConf.create(written | {section: written[section] | {"_name": name}})
    drop_other_keys(config, [{section: {"_name": name}}, written])
    return plain(config)


SECTIONS = ["model", "criterion", "sampler", "lr_scheduler", "optimizer"]


@pytest.mark.parametrize("section", SECTIONS)
def test_every_component_can_replace_every_other(section):
    """The keys that both have stay, and all others of the first are dropped."""
    keys = {name: component_keys(section, name) for name in components(section)}
    assert len(keys) > 1
    for before, after in itertools.permutations(keys, 2):
        written = {section: dict.fromkeys(keys[before], 1) | {"_name": before}}
        assert set(replaced(written, section, after)[section]) == keys[before] & keys[after]


@pytest.mark.fairseq
@pytest.mark.parametrize("section", SECTIONS)
def test_a_project_accepts_every_other_component(section):
    names = components(section)
    from mmpt_plugin.fairseq_bridge.train import fairseq_config

    project = plain(load_project("videoclip/pretrain"))
    for name in names:
        assert fairseq_config(replaced(project, section, name))


OWN = "# @package _global_\ndefaults: [/projects/videoclip/pretrain@_global_, _self_]\n"


def test_a_schedule_of_fairseq_drops_the_settings_of_another(caplog):
    pytest.importorskip("fairseq")
    caplog.set_level(logging.INFO)
    project = plain(
        load_project("videoclip/pretrain", ["lr_scheduler._name=cosine", "lr_scheduler.warmup_fraction=0.1"])
    )
    assert project["lr_scheduler"] == {"_name": "cosine", "warmup_updates": 1000, "warmup_fraction": 0.1}
    assert "lr_scheduler._name=cosine does not use the project's lr_scheduler.total_num_update" in caplog.text


def test_one_line_of_a_project_replaces_a_component_of_the_project_that_it_builds_on(tmp_path):
    """Also if a third project builds on it; settings next to the name, and later ones, stay."""
    (tmp_path / "own.yaml").write_text(OWN + "sampler: {_name: uniform, wrong: 1}\n")
    (tmp_path / "next.yaml").write_text(
        "# @package _global_\ndefaults: [own@_global_, _self_]\nsampler: {cluster_size: 8, later: 2}\n"
    )
    assert plain(load_project(str(tmp_path / "own.yaml")))["sampler"] == {
        "_name": "uniform", "cluster_size": 32, "wrong": 1
    }  # fmt: skip
    assert plain(load_project(str(tmp_path / "next.yaml")))["sampler"] == {
        "_name": "uniform", "cluster_size": 8, "wrong": 1, "later": 2
    }  # fmt: skip


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with a task and a project of one's own."""
    tmp_path = tmp_path / 'it\'s, "mine"'
    tmp_path.mkdir()
    monkeypatch.chdir(tmp_path)
    for folder in ("tasks", "projects"):
        (tmp_path / folder).mkdir()
    (tmp_path / "tasks" / "mine.yaml").write_text("_name: text_video_retrieval\ndataset: {_name: jsonl}\n")
    (tmp_path / "tasks" / "narrower.yaml").write_text("defaults: [mine, _self_]\ntest_set: mine, narrower\n")
    (tmp_path / "projects" / "mine.yaml").write_text(OWN)
    return tmp_path


def test_tasks_and_projects_of_the_current_folder_have_names(own):
    assert {"mine", "narrower", "msrvtt"} <= set(available("tasks"))
    (own / "projects" / "compose.yaml").write_text("services: {}")  # a folder of the same name, about something else
    assert "mine" in available("projects")
    assert "compose" not in available("projects")
    project = plain(load_project("mine", ["task=narrower", "task.benchmark=mine"]))
    assert (project["task"]["test_set"], project["task"]["dataset"]) == ("mine, narrower", {"_name": "jsonl"})
    assert project["task"]["benchmark"]["_name"] == "text_video_retrieval"
    assert plain(load_project("videoclip/zeroshot", ["task=mine", "checkpoint=x"]))["task"]["_name"]


@pytest.mark.parametrize(
    ("project", "words"), [("mime", []), ("mine", ["task=mime"]), ("mine", ["task.benchmark=mime"])]
)
def test_an_unknown_name_says_where_it_was_looked_for(own, project, words):
    group = "tasks" if words else "projects"
    with pytest.raises(ValueError, match=r"'mime'. Did you mean 'mine'\?.* Looked in ") as error:
        load_project(project, words)
    assert str(error.value).endswith(f" Looked in {own / group} and {root() / group}")


def test_two_different_files_of_one_name_are_refused(own):
    (own / "tasks" / "msrvtt.yaml").write_bytes((root() / "tasks" / "msrvtt.yaml").read_bytes())
    assert load_project("videoclip/zeroshot", ["task=msrvtt", "checkpoint=x"])
    (own / "tasks" / "msrvtt.yaml").write_text("_name: text_video_retrieval\n")
    with pytest.raises(ValueError, match=r"task YAML 'msrvtt' is both .*tasks/msrvtt.yaml and .*, which differ"):
        load_project("videoclip/zeroshot", ["task=msrvtt", "checkpoint=x"])
