"""Runs commands in processes that need not import torch, transformers and fairseq, which most of them spend most of
their time on.

A server has imported them, and nothing of this package; each command is a fork of it, in which all else happens as in a
process of its own.
"""

import contextlib
import json
import logging
import os
import signal
import subprocess
import sys
import tempfile
from functools import cache
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

PRELOADED = ("fairseq_cli.train", "transformers.models.bert.modeling_bert", "transformers.models.clip.modeling_clip")
COMMANDS = ("mmpt", "fairseq-train")


def preload() -> None:
    """Import what takes long, as far as it is installed, without fairseq's logging."""
    for name in PRELOADED:
        with contextlib.suppress(ImportError):
            __import__(name)
    logging.root.handlers.clear()
    logging.root.setLevel(logging.WARNING)


def run_warm(words: list[str], *, cwd: Path, timeout: int) -> "subprocess.CompletedProcess[str]":
    """The command's exit status and its output, as of `subprocess.run`."""
    with tempfile.TemporaryDirectory() as folder:
        output = [f"{folder}/out", f"{folder}/errors"]
        pipe = server()
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        request = {"words": words, "cwd": str(cwd), "output": output, "timeout": timeout, "environment": environment}
        pipe.stdin.write(json.dumps(request) + "\n")
        pipe.stdin.flush()
        status = int(pipe.stdout.readline())
        if status == -signal.SIGALRM:
            raise subprocess.TimeoutExpired(words, timeout)
        return subprocess.CompletedProcess(words, status, *(Path(path).read_text() for path in output))


@cache
def server() -> Any:
    """One for each process of the tests; it ends with it, because its input does."""
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    )


def next_command() -> dict[str, Any]:
    """Fork for each request. This returns in the child; the parent reports how the child ended."""
    for line in sys.stdin:
        if (child := os.fork()) == 0:
            return json.loads(line)
        sys.stdout.write(f"{os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])}\n")
        sys.stdout.flush()
    sys.exit()


if __name__ == "__main__":
    preload()
    command = next_command()
    signal.alarm(command["timeout"])
    os.chdir(command["cwd"])
    os.environ.clear()
    os.environ.update(command["environment"])
    for number, path in enumerate([os.devnull, *command["output"]]):
        os.dup2(os.open(path, os.O_RDWR | os.O_CREAT), number)
    sys.argv = command["words"]
    sys.path.pop(0)  # the folder of this file
    (entry,) = entry_points(group="console_scripts", name=Path(sys.argv[0]).name)
    if entry.name == "fairseq-train":
        del sys.modules[entry.module]  # whose import configures the log
    sys.exit(entry.load()())
