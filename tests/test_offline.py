"""The tests that run without a network would notice an attempt to use one."""

import pytest

from tests.conftest import run
from tests.offline import Offline, namespace


@pytest.mark.parametrize("call", ["create_connection(('192.0.2.1', 80), 5)", "getaddrinfo('example.org', 80)"])
def test_an_attempt_to_reach_another_machine_fails_and_is_recorded(tmp_path, call):
    offline = Offline(tmp_path)
    done = run(*offline.command("python", "-c", f"import socket; socket.{call}"), check=False, **offline.environment)
    assert done.returncode == 1
    assert "no network for" in done.stderr
    assert len(offline.attempts()) == 1


def test_processes_of_one_machine_reach_each_other(tmp_path):
    offline = Offline(tmp_path)
    code = "import socket; s = socket.create_server(('localhost', 0)); socket.create_connection(s.getsockname())"
    run(*offline.command("python", "-c", code), **offline.environment)
    assert offline.attempts() == []


@pytest.mark.skipif(not namespace(), reason="the system permits no network namespaces")
def test_a_program_without_python_s_sockets_has_no_network_either(tmp_path):
    devices = run(*Offline(tmp_path).command("cat", "/proc/net/dev")).stdout
    assert [line.split(":")[0].strip() for line in devices.splitlines()[2:]] == ["lo"]
