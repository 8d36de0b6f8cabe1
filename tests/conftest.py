"""Shared by the tests: a small toy kitchen with its features and shards, made once, and real commands."""

import os
import signal
import subprocess
import sys
import threading
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.warm import run_warm

# A shell that starts pytest in the background lets it, and all that it starts, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "mmpt_plugin"
KITCHEN = "TEST_KITCHEN"  # a folder with the kitchen of tests that start other tests
ENVIRONMENT = dict(os.environ)
TINY_ENCODER = {"_name": "s3d", "size": 32, "fps": 4}


@dataclass(frozen=True)
class Kitchen:
    """Twelve training and six held-out videos, S3D features from random weights, shards."""

    root: Path

    @property
    def features(self) -> Path:
        return self.root / "features"

    @property
    def shards(self) -> Path:
        return self.root / "shards" / "train"


@pytest.fixture(scope="session")
def kitchen(tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    from mmpt_plugin.features.extract import extract
    from mmpt_plugin.shards.make import make_shards
    from mmpt_plugin.toy_kitchen import generate

    if KITCHEN in os.environ:
        return Kitchen(Path(os.environ[KITCHEN]))
    made = Kitchen(tmp_path_factory.mktemp("kitchen"))
    generate(made.root, num_train=12, num_test=6, num_workers=2)
    extract([made.root / "videos"], made.features, encoder=TINY_ENCODER)
    make_shards(
        (made.root / "train.txt").read_text().split(),
        features=made.features,
        captions=made.root / "captions",
        tokenizer=str(made.root / "tokenizer"),
        out=made.shards,
    )
    return made


TINY_MODEL = {
    "feature_dim": 512,
    "hidden_size": 16,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "num_video_layers": 1,
    "num_text_layers": 1,
    "vocab_size": 317,
    "max_position_embeddings": 80,
    "dropout": 0.0,
}


def run(*words: object, cwd: Path = ROOT, check: bool = True, **environment: str) -> subprocess.CompletedProcess[str]:
    """A real command of this environment's bin folder, its output captured."""
    program, *arguments = map(str, words)
    path = Path(sys.executable).parent / program
    command = [str(path if path.exists() else program), *arguments]
    if program == "mmpt" and not environment and can_be_warm():
        done = run_warm(command, cwd=cwd, timeout=300)
    else:
        done = subprocess.run(
            command, cwd=cwd, text=True, capture_output=True, timeout=300,
            env=os.environ | {"OMP_NUM_THREADS": "1"} | environment, check=False,
        )  # fmt: skip
    if check and done.returncode:
        pytest.fail(
            f"{' '.join(map(str, words))}: exit status {done.returncode}\n{done.stdout[-3000:]}\n{done.stderr[-3000:]}"
        )
    return done


def can_be_warm() -> bool:
    """Whether the server of `run_warm` has what libraries read when they are imported, and no other thread uses it."""
    changed = {key for key, _ in os.environ.items() ^ ENVIRONMENT.items()}
    read = [key for key in changed if key.startswith(("HF_", "OMP_", "PYTHON"))]
    return not read and threading.current_thread() is threading.main_thread()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that take long come first, on SLURM and in all stores: other processes do the rest until they end."""
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None and item.path.name != "test_stores.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured, whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
