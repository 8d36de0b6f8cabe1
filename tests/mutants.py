"""Mutation tests: one small error at a time in a copy of the source, which the tests named with it must notice.

    .venv/bin/python tests/mutants.py [WORD ...]

tests/mutants.yaml lists the mutants. One that survives, because its tests pass, names a missing test. With words, only
the mutants of files whose path contains one of them.
"""

import logging
import multiprocessing
import os
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
LIST = ROOT / "tests" / "mutants.yaml"
TIMEOUT = 300.0  # seconds; a mutant whose tests take longer, in an endless loop, counts as killed
SLOW_IMPORTS = ("torch", "transformers", "faiss", "beartype")  # once, in the process that is forked for each mutant

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Mutant:
    file: str
    old: str
    new: str
    tests: tuple[str, ...]

    def __str__(self) -> str:
        return f"{self.file}: {self.old!r} -> {self.new!r}"

    def applied(self, root: Path) -> str:
        """The file's text with the error; ValueError where the list does not fit the source."""
        text = (root / self.file).read_text(encoding="utf-8")
        if text.count(self.old) != 1:
            raise ValueError(f"{LIST.name}: {self}: the old text occurs {text.count(self.old)} times, expected once")
        return text.replace(self.old, self.new)


def mutants() -> Iterator[Mutant]:
    for file, entry in yaml.safe_load(LIST.read_text(encoding="utf-8")).items():
        for old, new in entry["mutants"]:
            yield Mutant(file, old, new, tuple(entry["tests"]))


def survivors(chosen: Sequence[Mutant], copy: Path) -> Iterator[Mutant]:
    """Those whose tests pass; ValueError where tests fail in the copy as it is."""
    tests = sorted({name for mutant in chosen for name in mutant.tests})
    if not passes(copy, tests, timeout=len(tests) * TIMEOUT):
        raise ValueError(f"without a mutant, tests fail:\n{log_of(copy).read_text()[-3000:]}")
    for number, mutant in enumerate(chosen, 1):
        path, begin = copy / mutant.file, time.monotonic()
        original, text = path.read_text(encoding="utf-8"), mutant.applied(copy)
        write(path, text, second=2 * number)
        survived = passes(copy, mutant.tests)
        write(path, original, second=2 * number + 1)
        seconds = time.monotonic() - begin
        logger.info("%d/%d %s (%.0f s) %s", number, len(chosen), "SURVIVED" if survived else "killed", seconds, mutant)
        if survived:
            yield mutant


def write(path: Path, text: str, *, second: int) -> None:
    """Python takes a compiled file for current by the source's size and whole second: every version has its own."""
    path.write_text(text, encoding="utf-8")
    os.utime(path, (second, second))


def passes(copy: Path, tests: Sequence[str], *, timeout: float = TIMEOUT) -> bool:
    """Whether these tests pass in the copy, in a process of their own."""
    process = multiprocessing.get_context("fork").Process(target=run_tests, args=(copy, tests))
    process.start()
    process.join(timeout)
    if process.exitcode is None:
        os.killpg(process.pid, signal.SIGKILL)  # the processes that the tests started, too
        process.join()
    return process.exitcode == 0


def run_tests(copy: Path, tests: Sequence[str]) -> None:
    log = os.open(log_of(copy), os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    os.setsid()
    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)
    sys.path[0] = str(copy)
    code = pytest.main(["-x", "-q", "-p", "no:cacheprovider", *tests])
    sys.stdout.flush()
    os._exit(code)


def log_of(copy: Path) -> Path:
    return copy.with_suffix(".log")


def main(words: Sequence[str]) -> int:
    logging.basicConfig(format="%(message)s", stream=sys.stdout)
    logger.setLevel(logging.INFO)
    chosen = [mutant for mutant in mutants() if not words or any(word in mutant.file for word in words)]
    for mutant in chosen:
        mutant.applied(ROOT)
    os.environ["OMP_NUM_THREADS"] = "1"  # before torch: a process with threads can't be forked safely
    sys.dont_write_bytecode = False  # compiling for every mutant would take most of the time
    os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
    for name in SLOW_IMPORTS:
        import_module(name)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / "copy"
        shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", ".*_cache", "data", "runs"))
        found = list(survivors(chosen, copy))
    logger.info("%d mutants, %d survived", len(chosen), len(found))
    for mutant in found:
        logger.info("survived: %s", mutant)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
