"""Hand-made attacks: how one is made and judged; the others are in the modules that `load` imports."""

import importlib
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.hostile import sandbox
from benchmarks.hostile.cases import CANARY, Result, faults_of
from benchmarks.hostile.formats import FORMATS, Words

SCRIPT = "<script>document.title='canary'</script>"
IMAGE = '"><img src=x onerror=alert(1)>'
ESCAPE = "\x1b]0;owned\x07\x1b[2J\x1b[31m"
SHELL = "$(touch canary)`touch canary`;touch canary;'\"&|>canary"


@dataclass(frozen=True)
class Attack:
    """A command over hostile files."""

    words: Words
    says: str = ""
    """What the error names; an attack without it may also have no effect."""
    environment: tuple[str, str] = ("", "")


Make = Callable[[Path, Path], Attack | list[str]]
ATTACKS: dict[str, Make] = {}
"""Name -> what makes the files, from the folder of the seeds and an empty folder: a command, or the faults found."""


def attack(make: Make) -> Make:
    ATTACKS[make.__name__] = make
    return make


class Code:
    """A pickle of it runs a command of the shell."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, (f"touch {self.folder}/{CANARY}",)


def copied(name: str, seeds: Path, folder: Path) -> Path:
    return FORMATS[name].copy(seeds, folder)


def in_yaml(seeds: Path, folder: Path, name: str, text: str) -> Attack:
    """A text at the end of a project, task, profile or run."""
    path = copied(name, seeds, folder)
    file = path / "project.yaml" if path.is_dir() else path
    file.write_text(file.read_text() + text)
    return Attack(FORMATS[name].words(seeds, path))


def run_attack(name: str, *, seeds: Path, folder: Path) -> Result:
    """Make an attack's files and run its command."""
    folder.mkdir(parents=True)
    made = ATTACKS[name](seeds, folder)
    if isinstance(made, list):
        quiet = sandbox.Outcome(0, "", "", 0.0, 0, False)
        return Result(name, quiet, made, "an attack")
    variable, value = made.environment
    os.environ[variable or "MMPT_NOTHING"] = value
    outcome = sandbox.command(made.words, folder)
    faults = faults_of(outcome, folder)
    if made.says and not (outcome.status == 2 and re.search(made.says, outcome.stderr + outcome.stdout)):
        faults.append("unclear")
    return Result(name, outcome, faults, f"an attack, expected {made.says!r}" if made.says else "an attack")


def load() -> dict[str, Make]:
    """All attacks, by name."""
    for name in ("code", "paths_and_bombs", "text"):
        importlib.import_module(f"benchmarks.hostile.attacks_{name}")
    return ATTACKS
