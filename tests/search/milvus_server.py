"""A real Milvus server on this machine, for as long as tests need it.

From the PyPI package `milvus`, which is installed in a folder of its own: it is for x86_64 only and no client needs it.
The server listens on all interfaces, so it runs in a network namespace without any; one port of the loopback interface
is forwarded to it. Root on Linux only.

    python tests/search/milvus_server.py install     the package, if it is missing
"""

import contextlib
import ctypes
import fcntl
import json
import os
import platform
import shutil
import signal
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

VERSION = "2.3.5"
PACKAGE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "mmpt_plugin_tests" / f"milvus-{VERSION}"
PORT = 19530
CLONE_NEWNET = 0x40000000
SIOCSIFFLAGS, IFF_UP = 0x8914, 0x1
TICK = 20  # milliseconds, by default 200, for which a read waits that must see all writes


class Forwarder:
    """Forwards connections on a port of the loopback interface; `close` also cuts those that are open."""

    def __init__(self, port: int, listener: socket.socket | None = None) -> None:
        self.target = port
        self.listener = listener or listening()
        self.port: int = self.listener.getsockname()[1]
        self.open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        for sock in [self.listener, *self.open]:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_RDWR)
            sock.close()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                near, _ = self.listener.accept()
                try:
                    far = socket.create_connection(("127.0.0.1", self.target))
                except OSError:
                    near.close()
                    continue
                self.open += [near, far]
                for pair in ((near, far), (far, near)):
                    threading.Thread(target=copy, args=pair, daemon=True).start()


def copy(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(1 << 16):
            target.sendall(data)
    for sock in (source, target):
        with contextlib.suppress(OSError):
            sock.shutdown(socket.SHUT_RDWR)


def listening(port: int = 0) -> socket.socket:
    """A socket that listens on a port of the loopback interface, by default a free one."""
    listener = socket.socket()
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    listener.bind(("127.0.0.1", port))
    listener.listen(64)
    return listener


def why_not() -> str | None:
    """What keeps this machine from running a server."""
    if platform.machine() != "x86_64" or sys.platform != "linux":
        return "the package milvus is for Linux on x86_64"
    if os.geteuid() != 0:
        return "a network namespace wants root"
    if subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode:
        return "this machine allows no network namespaces"
    if not PACKAGE.is_dir():
        return f"the package milvus is missing: python {Path(__file__).name} install"
    return None


def install() -> None:
    """The package, in a folder that appears when it is complete."""
    if PACKAGE.is_dir():
        return
    unfinished = PACKAGE.with_name(f"{PACKAGE.name}.{os.getpid()}")
    words = ["--no-deps", "--only-binary=:all:", "--target", str(unfinished), f"milvus=={VERSION}"]
    subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", *words], check=True)
    with contextlib.suppress(OSError):  # another process was faster
        unfinished.rename(PACKAGE)
    shutil.rmtree(unfinished, ignore_errors=True)


@contextlib.contextmanager
def running(folder: Path) -> Iterator[int]:
    """The port of a server that keeps its data in the folder; it ends with this process at the latest."""
    words = [sys.executable, str(Path(__file__)), "serve", str(folder)]
    server = subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        answer = server.stdout.readline()
        assert answer, f"the server did not start, see {folder}/logs"
        yield int(answer)
    finally:
        server.stdin.close()
        server.wait(60)


def serve(folder: Path) -> None:
    """Run a server until stdin ends; its port, in the namespace of the caller, is printed when it is ready."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # so that the server is stopped
    listener = listening()  # it stays in the namespace of the caller
    enter_own_network()
    os.environ["TMPDIR"] = str(folder)
    sys.path.insert(0, str(PACKAGE))
    from milvus import MilvusServer, MilvusServerConfig

    config = MilvusServerConfig(data_dir=str(folder), proxy_port=PORT)
    config.set("proxy.timeTickInterval", TICK)
    server = MilvusServer(config)
    try:
        server.start()
        forwarder = Forwarder(PORT, listener)
        sys.stdout.write(f"{forwarder.port}\n")
        sys.stdout.flush()
        sys.stdin.read()
    finally:
        server.stop()


def enter_own_network() -> None:
    """Leave this process, and its children, only a loopback interface, which others cannot reach."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "unshare")
    with socket.socket() as sock:
        fcntl.ioctl(sock, SIOCSIFFLAGS, struct.pack("16sh14x", b"lo", IFF_UP))


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        if (reason := why_not()) and PACKAGE.is_dir():
            sys.exit(json.dumps({"installed": False, "reason": reason}))
        install()
    elif sys.argv[1:2] == ["serve"] and len(sys.argv) == 3:
        serve(Path(sys.argv[2]))
    else:
        sys.exit(__doc__)
