"""The list of `make mutants` fits the source and the tests."""

import pytest

from tests.mutants import ROOT, Mutant, mutants

LISTED = list(mutants())


def test_every_mutant_can_be_made_and_is_python():
    for mutant in LISTED:
        compile(mutant.applied(ROOT), mutant.file, "exec")
        assert mutant.old != mutant.new, mutant


def test_every_named_test_exists():
    assert all((ROOT / name).is_file() for mutant in LISTED for name in mutant.tests)


def test_no_mutant_is_listed_twice():
    assert len({(mutant.file, mutant.old, mutant.new) for mutant in LISTED}) == len(LISTED)


@pytest.mark.parametrize(("text", "number"), [("a = 1\n", 0), ("b = 1\nb = 1\n", 2)])
def test_a_text_that_is_not_in_the_file_once_is_an_error(tmp_path, text, number):
    (tmp_path / "file.py").write_text(text)
    with pytest.raises(ValueError, match=rf"file.py: 'b = 1' -> 'b = 2': the old text occurs {number} times"):
        Mutant("file.py", "b = 1", "b = 2", ()).applied(tmp_path)
