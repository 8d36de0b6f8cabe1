"""Time and memory of large inputs: whether time is linear in the size, and memory bounded.

    python -m benchmarks.sizes --json
    python -m benchmarks.sizes --only captions,shards

Each step of a case (`size_cases`) runs at several sizes, each time in a process of its own. Its time is that of the
processor, in this process and those that it started, so that other load does not count. Its memory is the peak of the
process, plus that of the largest process that it started. `time` and `memory` compare the last size with the first: a
step whose time is linear has at most the ratio of the sizes, and one with bounded memory has about 1.
A million moments of a collection are the subject of `benchmarks.search --moments 1000000`, and the clusters of 1.1
million videos that of `benchmarks.clusters --videos 1100000`.
"""

import argparse
import json
import multiprocessing
import resource
import tempfile
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from benchmarks.size_cases import CASES, Case


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--only", help=f"cases, separated by commas: {', '.join(CASES)}")
    parser.add_argument("--scale", type=float, default=1.0, help="factor of all sizes, for a quick run")
    parser.add_argument("--folder", type=Path, help="where the files are made and removed (default: as tempfile)")
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(CASES)
    if unknown := [name for name in names if name not in CASES]:
        parser.error(f"no case '{unknown[0]}'. Possible: {', '.join(CASES)}")
    result = {name: run(name, CASES[name], arguments.scale, arguments.folder) for name in names}
    if arguments.json:
        print(json.dumps(result))


def run(name: str, case: Case, scale: float, where: Path | None) -> dict[str, Any]:
    """The figures of each step, at each size."""
    sizes = [max(1, round(size * scale)) for size in case.sizes]
    result: dict[str, Any] = {step: {"sizes": sizes, "cpu_seconds": [], "peak_mib": []} for step in case.steps}
    for size in sizes:
        with tempfile.TemporaryDirectory(dir=where) as folder:
            apart(case.make, Path(folder), size)
            for step, function in case.steps.items():
                seconds, peak = apart(function, Path(folder), size)
                result[step]["cpu_seconds"].append(round(seconds, 1))
                result[step]["peak_mib"].append(round(peak / 2**20))
                print(f"{name}, {size:,} {case.unit}: {step}: {seconds:.1f} CPU-s, {peak / 2**20:,.0f} MiB", flush=True)
    for figures in result.values():
        figures["time"] = round(figures["cpu_seconds"][-1] / figures["cpu_seconds"][0], 2)
        figures["memory"] = round(figures["peak_mib"][-1] / figures["peak_mib"][0], 2)
    return result


def apart(function: Callable[[Path, int], object], folder: Path, size: int) -> tuple[float, int]:
    """CPU seconds and peak bytes of a function in a new process."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(measured, function, folder, size).result()


def measured(function: Callable[[Path, int], object], folder: Path, size: int) -> tuple[float, int]:
    function(folder, size)
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(own.ru_utime + own.ru_stime for own in used), sum(own.ru_maxrss for own in used) * 1024


if __name__ == "__main__":
    main()
