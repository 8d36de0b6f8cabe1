"""Kill commands, let their writes fail and start them twice; count what is lost, half written or wrong.

    python -m benchmarks.faults --kills 200 --faults all --json

Commands run in turn on a toy kitchen of 8 videos. Each is killed (SIGKILL, SIGTERM, SIGINT twice) at moments spread
over its whole run, is run again, and its output is compared with that of an undisturbed run. Then single writes fail:
the disk is full, an I/O error, a read-only file system, a rename that fails. Exits with 1 if anything is wrong.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.faults.commands import COMMANDS, jobs_of, make_inputs, small_commits
from benchmarks.faults.kills import Found, kill_often
from benchmarks.faults.processes import build_shim, load_libraries
from benchmarks.faults.together import run_together
from benchmarks.faults.writes import fail_often

SHIM_VARIABLE = "FAULT_SHIM"
WRONG = ("half_written", "lost", "wrong_results", "unclear", "leftovers")


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--kills", type=int, default=200, help="number of kills, of all commands together")
    parser.add_argument(
        "--faults", default="5", metavar="N", help="calls that fail, for each kind and command: a number, or all"
    )
    parser.add_argument("--pairs", type=int, default=2, help="how often each command is started twice at once")
    parser.add_argument("--commands", default=",".join(COMMANDS), help="comma-separated (default: all)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", action="store_true", help="print one line of JSON last")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if arguments.faults != "0" and SHIM_VARIABLE not in os.environ:
            shim = str(build_shim(Path(folder)))
            environment = os.environ | {"LD_PRELOAD": shim, SHIM_VARIABLE: shim}
            return subprocess.run(
                [sys.executable, "-m", "benchmarks.faults", *sys.argv[1:]], env=environment
            ).returncode
        result = measure(Path(folder), arguments)
    if arguments.json:
        print(json.dumps(result))
    return int(any(result[name] for name in WRONG))


def measure(folder: Path, arguments: argparse.Namespace) -> dict[str, Any]:
    """Disturb all commands; print what is wrong, and return the numbers."""
    load_libraries()
    small_commits()
    make_inputs(folder)
    names = arguments.commands.split(",")
    number = None if arguments.faults == "all" else int(arguments.faults)
    whole: dict[str, Any] = {"kills": 0, "faults": 0, "pairs": 0, **dict.fromkeys(WRONG, 0), "late": 0}
    for i, job in enumerate(jobs_of(folder, names)):
        rng, begun = np.random.default_rng([arguments.seed, COMMANDS.index(job.name)]), time.monotonic()
        job.prepare()
        kills = arguments.kills * (i + 1) // len(names) - arguments.kills * i // len(names)
        parts = {"kills": kill_often(job, kills, rng)}
        if number != 0:
            parts["faults"] = fail_often(job, number, rng)
        parts["pairs"] = Found()
        seconds = job.seconds(cold=False)
        for _ in range(arguments.pairs):
            parts["pairs"].merge(run_together(job, float(rng.uniform(0, seconds)), older=bool(job.before)))
        for name, found in parts.items():
            whole[name] += found.number
            whole["late"] += found.late
            for kind, problems in found.problems().items():
                whole[kind] += len(problems)
                for problem in problems:
                    print(f"{kind}: {problem}")
        counts = ", ".join(f"{found.number} {name}" for name, found in parts.items())
        print(f"{job.name}: {counts}, {time.monotonic() - begun:.0f} s", flush=True)
    return whole


if __name__ == "__main__":
    sys.exit(main())
