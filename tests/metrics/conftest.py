"""The originals' recorded inputs and results (tests/golden/metrics.*, tests/golden/clip_family/metrics)."""

import json
from pathlib import Path

import numpy as np
import pytest

GOLDEN = Path(__file__).parents[1] / "golden"
CLIP_FAMILY = GOLDEN / "clip_family" / "metrics"


@pytest.fixture(scope="session")
def recorded():
    with np.load(GOLDEN / "metrics.npz", allow_pickle=False) as arrays:
        return dict(arrays)


@pytest.fixture(scope="session")
def expected():
    return json.loads((GOLDEN / "metrics.json").read_text())


@pytest.fixture(scope="session")
def similarities():
    """The similarity matrices that CLIP2Video's evaluation was recorded with: rows are texts, columns are videos."""
    with np.load(CLIP_FAMILY / "inputs.npz", allow_pickle=False) as arrays:
        return {name: matrix.astype(np.float64) for name, matrix in arrays.items()}
