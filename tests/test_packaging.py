"""What setup.py declares: lower bounds that are tested, locked versions within the bounds, licenses, one version."""

import re
import runpy
from importlib.metadata import distribution

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import mmpt_plugin
from tests.conftest import ROOT, run
from tests.licenses import PERMISSIVE, WEAK_COPYLEFT, installed, license_of, locked, row

SETUP = (ROOT / "setup.py").read_text(encoding="utf-8")


def test_the_oldest_versions_that_are_tested_are_the_declared_lower_bounds():
    """Of all that the package needs at run time."""
    declared = dict(re.findall(r'"([\w-]+)>=([\d.]+)', SETUP[: SETUP.index('"dev"')].split('"docs"')[0]))
    tested = dict(re.findall(r"^([\w-]+)==([\d.]+)$", (ROOT / "requirements" / "oldest.txt").read_text(), re.M))
    assert declared.keys() == tested.keys()
    for name, bound in declared.items():
        assert re.sub(r"(\.0)+$", "", tested[name]) == bound.removesuffix(".0"), name


def test_the_version_has_one_owner():
    assert run("mmpt", "--version").stdout.strip() == f"mmpt {mmpt_plugin.__version__}"
    assert f"## {mmpt_plugin.__version__}" in (ROOT / "CHANGELOG.md").read_text().replace("[", "").replace("]", "")


@pytest.fixture
def requirements(monkeypatch):
    """What setup.py gives to setuptools: the requirements of all, and of each extra."""
    monkeypatch.chdir(ROOT)
    given = {}
    monkeypatch.setattr("setuptools.setup", lambda **arguments: given.update(arguments))
    runpy.run_path("setup.py")
    return {None: given["install_requires"]} | given["extras_require"]


@pytest.mark.parametrize("environment", ["demo", "test"])
def test_a_lock_file_has_every_direct_dependency_within_its_bounds(requirements, environment):
    """Except torch, of which a machine may have a build of its own; each file has a hash."""
    makefile = (ROOT / "Makefile").read_text()
    extras = re.search(r"^EXTRAS := (.*)", makefile, re.M)[1].split(",")
    extras += ["milvus", "slurm", "dev"] if environment == "test" else []
    versions = locked(environment)
    needed = [Requirement(line) for extra in (None, *extras) for line in requirements[extra]]
    for requirement in needed:
        name = canonicalize_name(requirement.name)
        assert name == "torch" or requirement.specifier.contains(versions[name]), requirement
    text = (ROOT / "requirements" / f"{environment}.txt").read_text()
    entries = re.split(r"^(?=[\w.-]+==)", text, flags=re.M)[1:]
    assert len(entries) == len(versions)
    assert all("--hash=sha256:" in entry for entry in entries)
    assert not re.search("https?:|file:|index-url", text)


def test_the_tests_run_with_the_versions_of_the_demo():
    assert locked("demo").items() <= locked("test").items()


def test_the_dependencies_have_permissive_licenses_that_the_documentation_lists():
    """MPL-2.0 applies to the files of a package, not to programs that use it."""
    page = (ROOT / "docs" / "reference" / "licenses.md").read_text(encoding="utf-8")
    assert {*re.findall(r"^\| ([a-z]\S+) \| .* tests \|$", page, re.M)} <= locked("test").keys() | {"ve-fairseq"}
    for package in [*installed(), distribution("torch")]:
        parts = {part for part in re.split(r" (?:AND|OR|WITH) |[()]", license_of(package)) if part}
        weak = WEAK_COPYLEFT if package.name in ("certifi", "orjson", "pathspec", "tqdm") else set()
        assert parts <= PERMISSIVE | weak, (package.name, parts)
        assert package.name == "torch" or row(package) in page, f"not in docs/reference/licenses.md: {row(package)}"
