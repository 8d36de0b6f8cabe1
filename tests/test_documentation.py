"""The commands that the documentation shows: each is understood, and those of the README's first run work."""

import re
import shlex
import sys
from pathlib import Path

import pytest

from mmpt_plugin.cli import parse
from mmpt_plugin.cli.launch import as_command
from mmpt_plugin.config import load_project, plain
from mmpt_plugin.tasks.finetuning import fine_tuned
from tests.conftest import ROOT, run

PAGES = [ROOT / "README.md", *sorted(ROOT.glob("*/README.md")), *sorted(ROOT.glob("docs/*.md"))]


def commands(page: Path) -> list[list[str]]:
    """The words of each command in a page's shell blocks, lines that end in a backslash joined, comments left out."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def shown(program: str) -> list[object]:
    found = [(page, words) for page in PAGES for words in commands(page) if words[0] == program]
    return [pytest.param(words[1:], id=f"{page.relative_to(ROOT)}: {' '.join(words[:3])}") for page, words in found]


@pytest.mark.parametrize("words", shown("mmpt"))
def test_every_mmpt_command_is_understood(words):
    """Its options exist, its project composes, and the overrides are keys."""
    arguments = parse(words)
    launched = arguments.launched if arguments.command == "launch" else arguments
    if launched.command in ("train", "evaluate"):
        assert fine_tuned(plain(load_project(launched.project, launched.overrides)))
    if arguments.command == "launch":
        assert as_command(arguments.words) == arguments.words
        load_profile = pytest.importorskip("mmpt_plugin.launch").load_profile
        assert load_profile(arguments.profile, arguments.for_profile).nodes >= 1


@pytest.mark.parametrize("words", shown("make"))
def test_every_make_target_exists(words):
    assert re.search(rf"^{words[0]}\b.*:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize("words", shown("pip"))
def test_every_install_command_is_taken_by_pip(words):
    """As far as that can be seen without the network: what is named is there, and the package's own extras exist."""
    if "-r" in words:
        assert (ROOT / words[words.index("-r") + 1]).is_file()
        return
    offline = ["--dry-run", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    done = run(sys.executable, "-m", "pip", *words, *offline)
    assert "Would install mmpt_plugin" in done.stdout.replace("mmpt-plugin", "mmpt_plugin")
    assert "does not provide the extra" not in done.stderr


@pytest.mark.fairseq
@pytest.mark.slow
def test_the_first_run_of_the_readme_works(tmp_path):
    """Word for word but for the folders, the number of videos and the number of epochs."""
    pytest.importorskip("fairseq")
    first, *others = (words for words in commands(ROOT / "README.md") if "toy_kitchen" in " ".join(words))
    lines = [[*first, "--train", "34", "--test", "2"], *(words for words in others if words[0] == "mmpt")]
    overrides = [
        "optimization.max_epoch=1", f"checkpoint.save_dir={tmp_path}/runs/demo",
        f"task.dataset.splits.train={tmp_path}/data/toy_kitchen/shards/train",
    ]  # fmt: skip
    measured = [f"task.dataset.{key}={tmp_path}/data/toy_kitchen/{value}" for key, value in (
        ("annotations", "test_clips.jsonl"), ("features", "features"), ("tokenizer", "tokenizer"),
    )]  # fmt: skip
    for words in lines:
        more = {"train": overrides, "evaluate": measured}.get(words[1], [])
        run(*(re.sub(r"(^|=)(data|runs)/", rf"\g<1>{tmp_path}/\g<2>/", word) for word in words), *more)
    assert (tmp_path / "runs" / "demo" / "checkpoint_last.pt").is_file()
