"""A child's ports, which nothing outside this machine shall reach."""

import errno
import socket
import subprocess
import sys
import time

import pytest

from hsa2c.cluster import loopback

CHILD = """
import socket, sys, time
time.sleep(0.3)
sockets = [socket.create_server((host, 0), family=family) for host, family in (
    ("0.0.0.0", socket.AF_INET), ("::", socket.AF_INET6), ("127.0.0.1", socket.AF_INET))]
print(*[s.getsockname()[1] for s in sockets], flush=True)
while True:
    sockets[0].accept()[0].send(b"hello")
"""


@pytest.fixture
def child():
    with subprocess.Popen([sys.executable, "-c", CHILD], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def test_ports_on_all_interfaces_are_bound_to_loopback(child):
    assert loopback.confine(child.pid) == []
    ports = [int(port) for port in child.stdout.readline().split()]
    assert sorted(loopback.listening(child.pid)) == sorted(zip(ports, ("lo", "lo", "127.0.0.1"), strict=True))
    with socket.create_connection(("127.0.0.1", ports[0]), timeout=10) as connection:
        assert connection.recv(5) == b"hello"


def test_child_that_listens_nowhere_is_not_waited_for_long(child):
    began_at = time.monotonic()
    assert loopback.confine(child.pid, limit_s=0.1) == []
    assert time.monotonic() - began_at < 5


def test_child_that_has_ended():
    with subprocess.Popen(["true"]) as process:
        process.wait()
    assert loopback.confine(process.pid, limit_s=0.2) == []


def test_ports_that_stay_open_are_told(child, monkeypatch):
    ports = [int(port) for port in child.stdout.readline().split()]

    def refuse(pid):
        raise PermissionError(errno.EPERM, "pidfd_getfd")
        yield

    monkeypatch.setattr(loopback, "sockets", refuse)
    assert loopback.confine(child.pid) == sorted(ports[:2])
