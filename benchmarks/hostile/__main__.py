"""Feed mutated and hand-made hostile files to every command, for the table in docs/explanation/reliability.md.

python -m benchmarks.hostile --cases 1000 --seed 0
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections import Counter
from collections.abc import Collection
from pathlib import Path

from benchmarks.hostile import sandbox
from benchmarks.hostile.cases import FAULTS, Result, kept_case, run_cases
from benchmarks.hostile.formats import FORMATS


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--cases", type=int, default=1000, help="number of mutated files (default 1000)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the mutations (default 0)")
    parser.add_argument("--case", metavar="NAME", help="run one case, FORMAT:NUMBER or an attack")
    parser.add_argument("--seeds", type=Path, metavar="DIR", help="folder of the valid files (default: temporary)")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep the files of failed cases in this folder")
    parser.add_argument("--json", action="store_true", help="print the counts as JSON in the last line")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        seeds = prepared(arguments.seeds or Path(temporary) / "seeds")
        own = {"seed": arguments.seed, "seeds": seeds, "work": Path(temporary) / "cases", "keep": arguments.keep}
        if arguments.case:
            result = one_case(arguments.case, **own)
            print(result.about, result.outcome.stdout, result.outcome.stderr, sep="\n")
            print(result.faults or "no fault")
            return bool(result.faults)
        results = run_cases(arguments.cases, **own)
        results += [one_case(name, **own) for name in attacks()]
    return report(results, as_json=arguments.json)


def attacks() -> Collection[str]:
    """The names of the hand-made attacks."""
    from benchmarks.hostile.attacks import load  # after `warm`

    return load()


def one_case(name: str, *, seed: int, seeds: Path, work: Path, keep: Path | None) -> Result:
    """Run a mutated file `FORMAT:NUMBER`, or an attack."""
    from benchmarks.hostile.attacks import load, run_attack

    if ":" in name:
        return kept_case(name, seed=seed, seeds=seeds, work=work, keep=keep)
    load()
    return run_attack(name, seeds=seeds, folder=work / name)


def prepared(seeds: Path) -> Path:
    """The folder of the valid files, made if it isn't there."""
    sandbox.warm()
    if not seeds.is_dir():
        from benchmarks.hostile.seeds import make

        seeds.mkdir(parents=True)
        made = sandbox.forked(lambda: make(seeds.resolve()), seeds, seconds=600, wait=600)
        if made.status:
            shutil.rmtree(seeds)
            raise RuntimeError(made.stderr)
    return seeds.resolve()


def report(results: list[Result], *, as_json: bool) -> int:
    """Print each failed case and the counts; 1 if a case failed."""
    for result in results:
        if result.faults:
            last = next(iter(reversed(result.outcome.stderr.strip().splitlines())), "")[:200]
            print(f"{', '.join(result.faults)}: {result.name}, {result.about}: {last!r}")
    counts = {"cases": len(results)} | {fault: sum(fault in one.faults for one in results) for fault in FAULTS}
    refused = Counter(result.outcome.status for result in results)
    slowest = max(results, key=lambda one: one.outcome.seconds)
    largest = max(results, key=lambda one: one.outcome.peak)
    print(f"accepted {refused[0]}, refused {refused[2]}; formats {len(FORMATS)}")
    print(f"slowest {slowest.outcome.seconds:.1f} s ({slowest.name}), ", end="")
    print(f"largest {largest.outcome.peak / 2**30:.2f} GiB ({largest.name})")
    print(json.dumps(counts) if as_json else ", ".join(f"{key} {value}" for key, value in counts.items()))
    return int(any(counts[fault] for fault in FAULTS))


if __name__ == "__main__":
    sys.exit(main())
