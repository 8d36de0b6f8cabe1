"""Run commands in forked processes that already have everything imported, with limits of time and memory."""

import contextlib
import gc
import importlib
import logging
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

SECONDS, WAIT = 10, 60
"""A command hangs if it computes for more than 10 s, or has not ended after 60 s: the machine may be busy."""
PEAK_BYTES = 2**31
"""The largest resident memory of a command, about 0.7 GiB of which is the libraries."""
ADDRESSES = 2**34
"""Bytes of address space that a command may add, so that a bomb doesn't take the machine down."""

MODULES = (
    "mmpt_plugin.cli", "mmpt_plugin.models", "mmpt_plugin.models.videoclip", "mmpt_plugin.models.clip2video",
    "mmpt_plugin.models.clip_mean", "mmpt_plugin.shards.make", "mmpt_plugin.features.extract",
    "mmpt_plugin.features.s3d", "mmpt_plugin.video.cache_frames", "mmpt_plugin.report", "mmpt_plugin.report.page",
    "mmpt_plugin.tasks.evaluate", "mmpt_plugin.tasks.preflight", "mmpt_plugin.corpora.jsonl", "mmpt_plugin.launch",
    "mmpt_plugin.tasks.estimate", "mmpt_plugin.fairseq_bridge.schedule", "mmpt_plugin.fairseq_bridge.train",
    "mmpt_plugin.samplers.uniform", "mmpt_plugin.datasets.overlapped_clips", "mmpt_plugin.search.embed", "hydra",
    "hydra.core.override_parser.overrides_parser", "omegaconf", "yaml", "matplotlib.figure", "PIL.Image",
    "transformers.models.bert.modeling_bert", "transformers.models.clip.modeling_clip",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and how it ended."""

    status: int
    """The exit status; negative for the signal that ended it."""
    stdout: str
    stderr: str
    seconds: float
    """The time it computed."""
    peak: int
    """Bytes of resident memory."""
    hung: bool


def warm() -> None:
    """Import what commands need, once, before processes are forked. No thread may have been started before."""
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    os.environ["HF_HUB_OFFLINE"] = "1"
    import torch

    torch.set_num_threads(1)
    logging.disable()
    for name in MODULES:
        importlib.import_module(name)
    from mmpt_plugin.config import load_project

    load_project("videoclip/zeroshot", ["task=msrvtt", "checkpoint=none"])  # fills the caches of Hydra's parser
    logging.disable(logging.NOTSET)
    gc.freeze()
    logging.getLogger().handlers.clear()
    logging.getLogger().setLevel(logging.WARNING)


def command(words: Sequence[object], folder: Path) -> Outcome:
    """Run `mmpt WORDS` in a folder."""
    from mmpt_plugin.cli import main

    return forked(lambda: main([str(word) for word in words]), folder)


def forked(call: Callable[[], int | None], folder: Path, *, seconds: int = SECONDS, wait: float = WAIT) -> Outcome:
    """Call a function in a process of its own, in a folder; its return value is the exit status."""
    out, err = folder / ".stdout", folder / ".stderr"
    sys.stdout.flush()
    sys.stderr.flush()
    started = time.monotonic()
    pid = os.fork()
    if pid == 0:
        resource.setrlimit(resource.RLIMIT_CPU, (seconds, seconds + 5))
        os._exit(status_of(call, folder, out, err))
    hung = False
    while True:
        ended, code, usage = os.wait4(pid, os.WNOHANG)
        if ended:
            break
        if time.monotonic() - started > wait:
            hung = True
            os.killpg(pid, signal.SIGKILL)
            _, code, usage = os.wait4(pid, 0)
            break
        time.sleep(0.002)
    with contextlib.suppress(ProcessLookupError, PermissionError):  # what the command may have left running
        os.killpg(pid, signal.SIGKILL)
    stdout, stderr = (path.read_text(encoding="utf-8", errors="backslashreplace") for path in (out, err))
    status, used = os.waitstatus_to_exitcode(code), usage.ru_utime + usage.ru_stime
    hung = hung or status in (-signal.SIGXCPU, -signal.SIGKILL)
    return Outcome(status, stdout, stderr, used, usage.ru_maxrss * 1024, hung)


def status_of(call: Callable[[], int | None], folder: Path, out: Path, err: Path) -> int:
    """In the forked process: call the function as a command of its own would run, and return its exit status."""
    os.setpgid(0, 0)
    os.chdir(folder)
    for path, number in ((out, 1), (err, 2)):
        os.dup2(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC), number)
    os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize() + ADDRESSES
    resource.setrlimit(resource.RLIMIT_AS, (size, size))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    sys.stdout = open(1, "w", encoding="utf-8", closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", encoding="utf-8", errors="backslashreplace", closefd=False)  # noqa: SIM115
    try:
        status = call() or 0
    except SystemExit as ending:
        status = ending.code if isinstance(ending.code, int) else 1
    except BaseException:
        traceback.print_exc()
        status = 1
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        sys.stderr.flush()
    return status
