"""Mutated inputs: each case changes one file, runs the command that reads it, and judges what a person sees."""

import re
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random

from benchmarks.hostile import sandbox
from benchmarks.hostile.formats import FORMATS, Format
from benchmarks.hostile.mutations import KINDS

FAULTS = ("tracebacks", "hangs", "over_memory", "canaries", "unclear")
CONTROL = re.compile(r"[\x00-\x08\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
OF_PYTHON = re.compile(
    r"codec can't|could not convert|invalid literal|to unpack|object is not|not subscriptable|has no attribute|"
    r"not supported between|unhashable|Exceeds the limit|unexpected keyword"
)
"""Words of Python's own errors, which say nothing to a person who wrote a file."""
NOISE = ("resource_tracker", "UserWarning", "warnings.warn")
LONGEST = 12_000
CANARY = "canary"
"""Attacks try to create a file of this name, or to print the secret of this name."""
SECRET = "s3cr3t-of-the-environment"


@dataclass(frozen=True)
class Result:
    """A case with what it did wrong."""

    name: str
    """`FORMAT:NUMBER` of a mutated file, or the name of an attack."""
    outcome: sandbox.Outcome
    faults: list[str]
    about: str


def mutated_case(name: str, *, seed: int, seeds: Path, folder: Path) -> Result:
    """Run the case `FORMAT:NUMBER`; the changed file is below `folder`."""
    key, _, _ = name.partition(":")
    form, rng = FORMATS[key], Random(f"{seed}:{name}")
    target = form.copy(seeds, folder)
    file, kind = rng.choice(list(form.files.items()))
    path = min(target.glob(file)) if file else target
    mutate = rng.choice(KINDS[kind])
    content = mutate(rng, path.read_bytes())
    path.write_bytes(content)
    if (index := repaired_index(form, path, content)) is not None:
        index.write_text(rewritten_index(index, path))
    outcome = sandbox.command(form.words(seeds, target), folder)
    return Result(
        name,
        outcome,
        faults_of(outcome, folder, names=names_of(form, path, target, kind)),
        f"{path.name} by {mutate.__name__}",
    )


def repaired_index(form: Format, path: Path, content: bytes) -> Path | None:
    """The index of a changed shard, which half of the cases make fit it: an attacker can compute checksums too."""
    return path.with_name("index.json") if path.name.startswith("shard-0") and len(content) % 2 else None


def rewritten_index(index: Path, shard: Path) -> str:
    """The index with the size and the checksum of a shard."""
    import json
    import zlib

    content, data = json.loads(index.read_text()), shard.read_bytes()
    for entry in content["shards"]:
        if entry["file"] == shard.name:
            entry |= {"bytes": len(data), "crc32": zlib.crc32(data)}
    return json.dumps(content)


def names_of(form: Format, path: Path, target: Path, kind: str) -> tuple[str, ...]:
    """What an error may call a file: its name, or the folder whose files belong together.

    An error of a project or a profile, of which a command reads one, may only name the key.
    """
    return () if kind == "yaml" else (path.name, str(target)) if path != target else (path.name,)


def faults_of(outcome: sandbox.Outcome, folder: Path, *, names: Sequence[str] = ()) -> list[str]:
    """The FAULTS of a command. An error must be one line that begins with `mmpt COMMAND:` and has one of the names."""
    faults = []
    printed = outcome.stdout + outcome.stderr
    if (outcome.status not in (0, 2) and not outcome.hung) or "Traceback (most recent call last)" in printed:
        faults.append("tracebacks")
    if outcome.hung:
        faults.append("hangs")
    if outcome.peak > sandbox.PEAK_BYTES:
        faults.append("over_memory")
    if list(folder.rglob(f"*{CANARY}*")) or SECRET in printed:
        faults.append("canaries")
    if CONTROL.search(printed) or (not faults and outcome.status == 2 and not is_clear(outcome, names)):
        faults.append("unclear")
    return faults


def is_clear(outcome: sandbox.Outcome, names: Sequence[str]) -> bool:
    """Whether a failed command says why: in one line with the file's name, or in one line for each failed video."""
    said = [line for line in outcome.stderr.split("\n") if line and not any(word in line for word in NOISE)]
    begin = next((number for number, line in enumerate(said) if line.startswith("mmpt ")), None)
    if begin is None:  # mmpt doctor lists its findings
        said, begin = [line for line in outcome.stdout.split("\n") if line.startswith("--")], 0
    lines = said[begin:]
    if not lines or any(not line.startswith(("failed: ", "left out: ", "--", "mmpt ")) for line in lines):
        return False
    if any("<class '" in line or len(line) > LONGEST for line in lines):
        return False
    if names:
        return any(name in line for line in lines for name in names)
    return not any(OF_PYTHON.search(line) for line in lines)


def run_cases(count: int, *, seed: int, seeds: Path, work: Path, keep: Path | None) -> list[Result]:
    """The first `count` cases of a seed, in turn of every format; files of failed ones are kept in `keep`."""
    check_valid(seeds, work)
    results = []
    for number in range(count):
        name = f"{list(FORMATS)[number % len(FORMATS)]}:{number // len(FORMATS)}"
        results.append(kept_case(name, seed=seed, seeds=seeds, work=work, keep=keep))
    return results


def check_valid(seeds: Path, work: Path) -> None:
    """RuntimeError if a command refuses the valid file of its format: mutations of it would test nothing."""
    for name, form in FORMATS.items():
        folder = work / name
        folder.mkdir(parents=True)
        outcome = sandbox.command(form.words(seeds, form.copy(seeds, folder)), folder)
        if outcome.status:
            raise RuntimeError(f"the valid file of {name} is refused: {outcome.stdout} {outcome.stderr}")


def kept_case(name: str, *, seed: int, seeds: Path, work: Path, keep: Path | None) -> Result:
    """Run a case in a folder that is deleted, or moved to `keep` if the case fails."""
    folder = work / name.replace(":", "-")
    folder.mkdir(parents=True)
    result = mutated_case(name, seed=seed, seeds=seeds, folder=folder)
    if result.faults and keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(keep / folder.name, ignore_errors=True)
        shutil.move(folder, keep / folder.name)
    shutil.rmtree(folder, ignore_errors=True)
    return result
