"""What setup.py declares: lower bounds that are tested, one version, and typed modules."""

import re

import mmpt_plugin
from tests.conftest import ROOT, run

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
