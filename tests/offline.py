"""Commands without a network, and a record of every attempt to use it.

They run in a network namespace of their own, which has no more than the loopback device. Where the system permits no
namespace, Python's sockets alone refuse other machines.
"""

import fcntl
import os
import socket
import struct
import subprocess
import sys
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[1]
SET_FLAGS, UP = 0x8914, 1  # SIOCSIFFLAGS, IFF_UP

GUARD = '''
"""Refuse and record connections to other machines."""

import os
import socket

connect, getaddrinfo = socket.socket.connect, socket.getaddrinfo


def check(host):
    host = host.decode() if isinstance(host, bytes) else host
    if host and not host.startswith("127.") and host not in ("::1", "0.0.0.0", "localhost", socket.gethostname()):
        with open(os.environ["NETWORK_ATTEMPTS"], "a") as file:
            print(host, file=file)
        raise OSError(f"no network for {host}")


def local_connect(self, address):
    if self.family in (socket.AF_INET, socket.AF_INET6):
        check(address[0])
    return connect(self, address)


def local_getaddrinfo(host, *arguments, **keywords):
    check(host)
    return getaddrinfo(host, *arguments, **keywords)


socket.socket.connect, socket.getaddrinfo = local_connect, local_getaddrinfo
'''


class Offline:
    """The words before a command, and its environment."""

    def __init__(self, folder: Path) -> None:
        self.record = folder / "network_attempts.txt"
        (folder / "sitecustomize.py").write_text(GUARD)
        path = os.pathsep.join([str(folder), str(ROOT), os.environ.get("PYTHONPATH", "")])
        self.environment = {"PYTHONPATH": path, "NETWORK_ATTEMPTS": str(self.record)}

    def command(self, *words: object) -> list[str]:
        """The words of a command that runs without a network; its program is searched next to this Python first."""
        own = Path(sys.executable).parent / str(words[0])
        program = str(own if own.exists() else words[0])
        return [*namespace(), program, *map(str, words[1:])]

    def attempts(self) -> list[str]:
        """The hosts that the commands tried to reach."""
        return self.record.read_text().split() if self.record.exists() else []


@cache
def namespace() -> tuple[str, ...]:
    """The words that run a command in a network namespace; none where the system does not permit one."""
    own = (sys.executable, str(Path(__file__)))
    for flags in ("--net", "--net --map-root-user"):
        words = ("unshare", *flags.split(), *own)
        try:
            if subprocess.run([*words, "true"], capture_output=True, check=False).returncode == 0:
                return words
        except FileNotFoundError:
            break
    return ()


def main() -> None:
    """Within a new namespace: start its loopback device, and become the command."""
    with socket.socket() as anything:
        fcntl.ioctl(anything, SET_FLAGS, struct.pack("16sh", b"lo", UP))
    os.execvp(sys.argv[1], sys.argv[1:])


if __name__ == "__main__":
    main()
