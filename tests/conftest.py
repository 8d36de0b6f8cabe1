"""Shared by the tests: a small toy kitchen with its features and shards, made once, and real commands."""

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.warm import COMMANDS, preload, run_warm

# A shell that starts pytest in the background lets it, and all that it starts, ignore Ctrl-C.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).parents[1]
PLUGIN = ROOT / "mmpt_plugin"
KITCHEN = "TEST_KITCHEN"  # a folder with the kitchen of tests that start other tests
READ_BY_IMPORTS = ("HF_", "OMP_", "PYTHON")  # environment variables
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
def kitchen(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Kitchen:
    """One for all processes of a run."""
    from mmpt_plugin.files import locked

    if KITCHEN in os.environ:
        return Kitchen(Path(os.environ[KITCHEN]))
    base = tmp_path_factory.getbasetemp()
    made = Kitchen((base.parent if is_worker(request.config) else base) / "kitchen")
    with locked(made.root.with_suffix(".lock")):
        if not made.shards.exists():
            make_kitchen(made)
    return made


def make_kitchen(made: Kitchen) -> None:
    from mmpt_plugin.features.extract import extract
    from mmpt_plugin.shards.make import make_shards
    from mmpt_plugin.toy_kitchen import generate

    generate(made.root, num_train=12, num_test=6, num_workers=2)
    extract([made.root / "videos"], made.features, encoder=TINY_ENCODER)
    make_shards(
        (made.root / "train.txt").read_text().split(),
        features=made.features,
        captions=made.root / "captions",
        tokenizer=str(made.root / "tokenizer"),
        out=made.shards,
    )


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
    if program in COMMANDS and not environment and can_be_warm():
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
    return read_by_imports() == ENVIRONMENT and threading.current_thread() is threading.main_thread()


def read_by_imports() -> dict[str, str]:
    """What libraries read when they are imported."""
    return {key: value for key, value in os.environ.items() if key.startswith(READ_BY_IMPORTS)}


ENVIRONMENT = read_by_imports()


@pytest.fixture(autouse=True)
def restored_environment() -> Iterator[None]:
    """What fairseq sets for its workers ends with the test."""
    yield
    for key in read_by_imports().keys() - ENVIRONMENT.keys():
        del os.environ[key]
    os.environ.update(ENVIRONMENT)


def is_worker(config: pytest.Config) -> bool:
    """Whether this is one of pytest-xdist's processes."""
    return hasattr(config, "workerinput")


def pytest_configure(config: pytest.Config) -> None:
    if is_worker(config):
        preload()  # jaxtyping's import hook compiles all that this package imports first, each time


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Those that take long come first, on SLURM and in all stores: other processes do the rest until they end."""
    items.sort(key=lambda item: item.get_closest_marker("slurm") is None and item.path.name != "test_stores.py")


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What tests have measured, whichever process they ran in."""
    for report in terminalreporter.getreports("passed"):
        for name, value in report.user_properties:
            terminalreporter.write_line(f"{name}: {value}")
