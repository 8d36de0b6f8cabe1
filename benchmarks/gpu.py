"""Everything that a GPU can do for this project, measured by one command in less than 8 minutes.

    python -m benchmarks.gpu --json gpu.json

Each part runs in a process of its own with a time limit, and has several measurements, which are printed as they come.
A part or a measurement that fails is one line, and the others go on; what was measured so far is always in the JSON
file. Without a GPU, the same parts run on the CPU at small sizes, whose figures mean nothing. The exit status is 1 if
anything failed.
"""

import argparse
import json
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch

from benchmarks import gpu_parts
from benchmarks.gpu_parts import ON_CPU, ON_GPU, Figures, Sizes
from mmpt_plugin.errors import first_line
from mmpt_plugin.files import atomic_write


@dataclass(frozen=True)
class Part:
    """Some measurements that share a process."""

    measure: Callable[[Sizes], Iterator[tuple[str, Figures]]]
    """Yields the name and the figures of each measurement; figures with the key `failed` have its reason."""
    limit: float
    """Seconds until the process is killed; `Sizes.patience` multiplies them."""


PARTS: dict[str, Part] = {  # of 8 minutes in all
    "tests": Part(gpu_parts.tests, 45),
    "matmul": Part(gpu_parts.matmul, 20),
    "step": Part(gpu_parts.step, 110),
    "forward": Part(gpu_parts.forward, 40),
    "extraction": Part(gpu_parts.extraction, 45),
    "index": Part(gpu_parts.index, 50),
    "evaluate": Part(gpu_parts.evaluate, 50),
    "loader": Part(gpu_parts.loader, 40),
    "compiled": Part(gpu_parts.compiled, 80),
}


class PartFailed(Exception):
    """A process did not finish its part; the message is one line."""


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--json", type=Path, required=True, metavar="OUT", help="file for all figures")
    parser.add_argument("--only", help=f"parts, separated by commas: {', '.join(PARTS)}")
    arguments = parser.parse_args()
    names = arguments.only.split(",") if arguments.only else list(PARTS)
    if unknown := [name for name in names if name not in PARTS]:
        parser.error(f"no part '{unknown[0]}'. Possible: {', '.join(PARTS)}")
    sizes = ON_GPU if torch.cuda.is_available() else ON_CPU
    device = torch.cuda.get_device_name() if sizes is ON_GPU else "CPU"
    print(device if sizes is ON_GPU else "no GPU: this only shows that each part runs, on the CPU at small sizes")
    about = {"device": device, "torch": torch.__version__, "cuda": torch.version.cuda}
    results = run({name: PARTS[name] for name in names}, sizes, arguments.json, about)
    return int(bool(results["failures"]))


def run(parts: Mapping[str, Part], sizes: Sizes, out: Path, about: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of all parts, written to a file after each measurement."""
    results: dict[str, Any] = {**about, "parts": {}, "failures": {}, "seconds": {}}

    def write() -> None:
        atomic_write(out, lambda temporary: temporary.write_text(json.dumps(results, indent=1), encoding="utf-8"))

    def fail(what: str, reason: str) -> None:
        results["failures"][what] = reason
        print(f"{what} failed: {reason}", flush=True)

    for name, part in parts.items():
        start, figures_of = time.monotonic(), results["parts"].setdefault(name, {})
        try:
            for measurement, figures in measurements(part, sizes):
                if "failed" in figures:
                    fail(f"{name} {measurement}", figures["failed"])
                else:
                    figures_of[measurement] = figures
                    print(f"{name} {measurement}: {said(figures)}", flush=True)
                write()
        except PartFailed as error:
            fail(name, str(error))
        results["seconds"][name] = round(time.monotonic() - start, 1)
        write()
    return results


def measurements(part: Part, sizes: Sizes) -> Iterator[tuple[str, Figures]]:
    """The measurements of a part, in a process group of their own that is killed at the end of its time."""
    context = multiprocessing.get_context("spawn")
    receiving, sending = context.Pipe(duplex=False)
    process = context.Process(target=serve, args=(part.measure, sizes, sending))
    process.start()
    sending.close()
    limit = part.limit * sizes.patience
    end = time.monotonic() + limit
    try:
        while receiving.poll(max(0.0, end - time.monotonic())):
            message = receiving.recv()
            if message is None:
                return
            if isinstance(message, str):
                raise PartFailed(message)
            yield message
        raise PartFailed(f"stopped after {limit:g} s")
    except EOFError:
        process.join()
        raise PartFailed(f"its process ended with status {process.exitcode}") from None
    finally:
        with suppress(ProcessLookupError):
            os.killpg(process.pid or 0, signal.SIGKILL)
        process.kill()
        process.join()


def serve(measure: Callable[[Sizes], Iterator[tuple[str, Figures]]], sizes: Sizes, to: Connection) -> None:
    """Send each measurement, then None; after an error, its first line."""
    os.setsid()
    try:
        for measurement in measure(sizes):
            to.send(measurement)
        to.send(None)
    except Exception as error:
        to.send(f"{type(error).__name__}: {first_line(error)}")


def said(figures: Figures) -> str:
    """The figures in one line."""
    return ", ".join(
        f"{key} {value:,.4g}" if isinstance(value, float) else f"{key} {value}" for key, value in figures.items()
    )


if __name__ == "__main__":
    sys.exit(main())
