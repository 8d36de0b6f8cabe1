"""The original's recorded inputs and results (tests/golden/metrics.*)."""

import json
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="session")
def recorded():
    with np.load(GOLDEN / "metrics.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def expected():
    return json.loads((GOLDEN / "metrics.json").read_text())
