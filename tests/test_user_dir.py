"""User directories: what they may be, what is wrong with them, and who imports them."""

import os
import subprocess
import sys

import pytest

from mmpt_plugin import registry, user_dir
from mmpt_plugin.cli import parse
from mmpt_plugin.config import load_project
from mmpt_plugin.models.pretrained import model_name
from tests.conftest import run

SAMPLER = """
from mmpt_plugin import register_sampler
from mmpt_plugin.samplers import Uniform, UniformConfig

@register_sampler("{name}", dataclass=UniformConfig)
class Mine(Uniform):
    "Of one's own."
"""


@pytest.fixture(autouse=True)
def clean(monkeypatch):
    """Each test begins and ends without a user directory."""
    monkeypatch.setenv(user_dir.VARIABLE, "")
    monkeypatch.setattr(sys, "path", [*sys.path])
    before = set(sys.modules)
    yield
    for name in [name for name in set(sys.modules) - before if name.startswith("own_")]:
        del sys.modules[name]
    for name in [name for name in registry.samplers._entries if name.startswith("own_")]:
        del registry.samplers._entries[name]
    user_dir.import_once.cache_clear()


def test_a_folder_registers_its_components(tmp_path):
    (tmp_path / "own_folder").mkdir()
    (tmp_path / "own_folder" / "__init__.py").write_text("from own_folder import sampler")
    (tmp_path / "own_folder" / "sampler.py").write_text(SAMPLER.format(name="own_a"))
    user_dir.load(tmp_path / "own_folder")
    assert "own_a" in registry.samplers
    assert os.environ[user_dir.VARIABLE] == str(tmp_path / "own_folder")


def test_other_processes_find_the_components_by_the_environment(tmp_path):
    (tmp_path / "own_file.py").write_text(SAMPLER.format(name="own_b"))
    listed = run("mmpt", "list", cwd=tmp_path, MMPT_USER_DIR="own_file.py").stdout
    assert "own_b" in listed
    assert "own_b" in run("mmpt", "list", "--user-dir", "own_file.py", cwd=tmp_path).stdout
    user_dir.load(tmp_path / "own_file.py")
    code = "from mmpt_plugin import registry; print(registry.samplers['own_b'].cls.__module__)"
    done = subprocess.run([sys.executable, "-c", code], text=True, capture_output=True, check=True, cwd=tmp_path.parent)
    assert done.stdout.strip() == "own_file"


@pytest.mark.parametrize(
    ("name", "code", "message"),
    [
        ("own_none", None, r"no user directory .*own_none: expected a folder that contains __init__.py, or a .py file"),
        (
            "own-dash.py",
            "",
            r"user directory .*own-dash.py: 'own-dash' is not a name that Python can import, rename it",
        ),
        ("json.py", "", r"json.py can't be imported, because .*json/__init__.py has its name: rename it"),
        ("own_error.py", "a = 1\nb = c", r"own_error.py: NameError: name 'c' is not defined \(.*own_error.py:2\)"),
        ("own_syntax.py", "a = (", r"user directory .*own_syntax.py: SyntaxError: .*own_syntax.py, line 1"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path, name, code, message):
    if code is not None:
        (tmp_path / name).write_text(code)
    with pytest.raises(ValueError, match=message) as error:
        user_dir.load(tmp_path / name)
    assert "\n" not in str(error.value)


def test_a_class_that_is_refused_is_named_with_its_line(tmp_path):
    (tmp_path / "own_bad.py").write_text(SAMPLER.format(name="own_c").replace("Mine(Uniform)", "Mine"))
    with pytest.raises(ValueError, match=r"sampler 'own_c' \(own_bad.Mine\) lacks clusters\(epoch.*own_bad.py:5\)"):
        user_dir.load(tmp_path / "own_bad.py")


def test_a_folder_that_registers_nothing_is_mentioned_when_a_name_is_missing(tmp_path):
    (tmp_path / "own_empty.py").write_text("")
    user_dir.load(tmp_path / "own_empty.py")
    with pytest.raises(ValueError, match=r"no sampler 'own_d'.*own_empty.py registers nothing: does its __init__.py"):
        registry.samplers["own_d"]


def test_a_project_records_the_user_directory_of_its_ranks_and_restarts(tmp_path, monkeypatch):
    """In either spelling, as an absolute path, and its components are known when the project is composed."""
    (tmp_path / "own_e.py").write_text(SAMPLER.format(name="own_e"))
    monkeypatch.chdir(tmp_path)
    words = ["sampler._name=own_e"]
    composed = load_project("videoclip/toy_kitchen", [*words, "common.user_dir=own_e.py"])
    assert composed.common.user_dir == str(tmp_path / "own_e.py")
    assert composed.sampler == {"_name": "own_e", "cluster_size": 16}
    assert load_project("videoclip/toy_kitchen", words).common.user_dir == str(tmp_path / "own_e.py")


def test_a_launched_command_keeps_its_user_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for words in (["--user-dir", "mine", "extract", "v", "--encoder", "x", "--out", "o"], ["p", "--user-dir", "mine"]):
        arguments = parse(["launch", "--profile", "local", *words])
        assert arguments.words[-2:] == ["--user-dir", str(tmp_path / "mine")]
        assert arguments.launched.user_dir == tmp_path / "mine"
    monkeypatch.setenv(user_dir.VARIABLE, "other")
    assert parse(["launch", "p", "--profile", "local"]).words == ["train", "p", "--user-dir", str(tmp_path / "other")]


def test_a_checkpoint_of_an_unknown_model_names_its_user_directory():
    with pytest.raises(
        ValueError, match=r"^c.pt contains a model 'x', which is not registered here: it was trained with"
    ):
        model_name({"_name": "x", "user_dir": "/a/mine"}, where="c.pt")
    with pytest.raises(
        ValueError, match=r"'x', which is not registered here: import its module \(--user-dir DIR\), or install"
    ):
        model_name({"model_type": "x"}, where="c.pt")
    assert model_name({"_name": "mmarch"}, where="c.pt") == model_name({}, where="c.pt") == "videoclip"


def test_the_user_directory_of_fairseq_train_is_printed(tmp_path):
    assert run("mmpt", "user-dir", cwd=tmp_path).stdout.strip() == str(user_dir.PACKAGE)
