"""What the documentation shows: every command is understood, the examples work, and so does a first run."""

import re
import shlex
import sys
import textwrap
from pathlib import Path

import pytest

from mmpt_plugin.cli import parse
from mmpt_plugin.cli.launch import as_command
from mmpt_plugin.cli.prepare import write_project
from mmpt_plugin.config import load_project, plain
from mmpt_plugin.tasks.finetuning import fine_tuned
from tests.conftest import ROOT, run
from tests.offline import Offline

PAGES = [
    ROOT / "README.md",
    ROOT / "CONTRIBUTING.md",
    *sorted(ROOT.glob("*/README.md")),
    *sorted(ROOT.glob("docs/**/*.md")),
]
FAIRSEQ_TRAIN = ROOT / "docs" / "how-to" / "fairseq-train.md"


def commands(page: Path) -> list[list[str]]:
    """The words of each command in a page's shell blocks, lines that end in a backslash joined, comments left out."""
    blocks = re.findall(r"```bash\n(.*?)```", page.read_text(encoding="utf-8"), re.S)
    lines = "\n".join(blocks).replace("\\\n", " ").splitlines()
    return [words for line in lines if (words := shlex.split(line, comments=True))]


def files(page: Path) -> dict[str, str]:
    """The files that a page asks its reader to save: the blocks with a title, which is the file's name."""
    blocks = re.findall(r'^( *)```\w+ title="([^"]+)"\n(.*?)^ *```$', page.read_text(encoding="utf-8"), re.S | re.M)
    return {name: textwrap.dedent(indent + text.removeprefix(indent)) for indent, name, text in blocks}


def prepared(page: Path, folder: Path) -> list[str]:
    """Write the projects that the page's commands `mmpt prepare` write, and return their names on the page."""
    outs = [words[words.index("--out") + 1] for words in commands(page) if words[:2] == ["mmpt", "prepare"]]
    for out in outs:
        (folder / out).mkdir(parents=True, exist_ok=True)
        write_project(folder / out / "project.yaml", {"train": 90, "valid": 10}, model=None, start=None, comments=[])
    return [f"{out}/project.yaml" for out in outs]


def shown(program: str) -> list[object]:
    found = [(page, words) for page in PAGES for words in commands(page) if words[0] == program]
    return [
        pytest.param(page, words[1:], id=f"{page.relative_to(ROOT)}: {' '.join(words[:3])}") for page, words in found
    ]


@pytest.mark.parametrize(("page", "words"), shown("mmpt"))
def test_every_mmpt_command_is_understood(page, words, tmp_path):
    """Its options exist, its project composes, and the overrides are keys."""
    for name, text in files(page).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text, encoding="utf-8")
    written = [*files(page), *prepared(page, tmp_path)]
    arguments = parse([str(tmp_path / word) if word in written else word for word in words])
    launched = arguments.launched if arguments.command == "launch" else arguments
    if launched.command in ("train", "evaluate"):
        assert fine_tuned(plain(load_project(launched.project, launched.overrides)))
    if arguments.command == "launch":
        assert as_command(arguments.words) == arguments.words
        load_profile = pytest.importorskip("mmpt_plugin.launch").load_profile
        assert load_profile(arguments.profile, arguments.for_profile).nodes >= 1


@pytest.mark.parametrize(("page", "words"), shown("make"))
def test_every_make_target_exists(page, words):
    assert re.search(rf"^(?:[\w-]+ )*{words[0]}\b.*:", (ROOT / "Makefile").read_text(), re.M)


@pytest.mark.parametrize(("page", "words"), shown("pip"))
def test_every_install_command_is_taken_by_pip(page, words):
    """As far as that can be seen without the network: what is named is there, and the package's own extras exist."""
    if "-r" in words:
        assert (ROOT / words[words.index("-r") + 1]).is_file()
        return
    offline = ["--dry-run", "--no-deps", "--no-build-isolation", "--disable-pip-version-check"]
    done = run(sys.executable, "-m", "pip", *words, *offline)
    assert "Would install mmpt_plugin" in done.stdout.replace("mmpt-plugin", "mmpt_plugin")
    assert "does not provide the extra" not in done.stderr


def linked(page: Path) -> list[object]:
    """The files that a page links to, and their headings."""
    links = re.findall(r"\]\((?!\w+:)([^)#]*)(?:#([^)]+))?\)", page.read_text(encoding="utf-8"))
    return [
        pytest.param(page, *link, id=f"{page.relative_to(ROOT)}: {'#'.join(link)}") for link in dict.fromkeys(links)
    ]


@pytest.mark.parametrize(("page", "link", "heading"), [link for page in PAGES for link in linked(page)])
def test_every_link_within_the_repository_leads_somewhere(page, link, heading):
    """Pages of the site that are made when it is built, such as reference/cli.md, are mkdocs' to check."""
    target = (page.parent / link).resolve() if link else page
    if target.parent == ROOT / "docs" / "reference" and page.is_relative_to(ROOT / "docs"):
        return
    assert target.exists()
    if heading:
        headings = re.findall(r"^#+ (.+)$", target.read_text(encoding="utf-8"), re.M)
        assert heading in [re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in headings]


@pytest.mark.fairseq
@pytest.mark.slow
def test_the_first_run_works(tmp_path):
    """Word for word but for the folders, the number of videos and the number of epochs; then the other steps of
    `make demo`. No step needs a network, or tries to use one."""
    pytest.importorskip("fairseq")
    offline = Offline(tmp_path)
    first, *others = (words for words in commands(FAIRSEQ_TRAIN) if "toy_kitchen" in " ".join(words))
    lines = [[*first, "--train", "34", "--test", "2"], *(words for words in others if words[0] == "mmpt")]
    overrides = ["optimization.max_epoch=1", f"task.dataset.splits.train={tmp_path}/data/toy_kitchen/shards/train"]
    measured = [f"task.dataset.{key}={tmp_path}/data/toy_kitchen/{value}" for key, value in (
        ("annotations", "test_clips.jsonl"), ("features", "features"), ("tokenizer", "tokenizer"),
    )]  # fmt: skip
    trained = [*overrides, f"checkpoint.save_dir={tmp_path}/runs/demo"]
    validated = overrides + [override.replace("task.", "task.benchmark.") for override in measured]
    for words in lines:
        written = [*measured, "--json", str(tmp_path / "runs/demo/metrics.json")]
        more = {"train": trained, "evaluate": written}.get(words[1], [])
        if "task.benchmark=toy_kitchen_clips" in words:
            more = validated
        words = [re.sub(r"(^|=)(data|runs)/", rf"\g<1>{tmp_path}/\g<2>/", word) for word in words]
        run(*offline.command(*words, *more), **offline.environment)
    data, demo, collection = tmp_path / "data/toy_kitchen", tmp_path / "runs/demo", tmp_path / "collection"
    options = ["--tokenizer", data / "tokenizer", "--encoder", "efficientnet_lite0", "--collection", collection]
    for words in (
        ["report", demo, "--videos", data / "videos"],
        ["index", data / "videos/toy_0000.mp4", "--model", demo / "checkpoint_last.pt", *options],
        ["search", collection, "slice the tomato"],
    ):
        done = run(*offline.command("mmpt", *words), **offline.environment)
    assert "toy_0000" in done.stdout
    assert offline.attempts() == []
    assert (tmp_path / "runs" / "validated" / "checkpoint_best.pt").is_file()
