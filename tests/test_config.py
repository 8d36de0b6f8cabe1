"""Composing projects: overrides and their values."""

import logging

import pytest

from mmpt_plugin.config import load_project, plain

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
