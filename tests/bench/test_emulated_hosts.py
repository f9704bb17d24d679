"""Emulated hosts are told apart, reached, cut off and killed; and nothing is left of them."""

import contextlib
import os
import statistics
import subprocess
import sys
from pathlib import Path

import pytest

from bench.testbed.emulated_hosts import EmulatedHosts, why_not
from tests.processes import wait_until

WHY_NOT = why_not()
pytestmark = pytest.mark.skipif(WHY_NOT is not None, reason=f"hosts cannot be emulated: {WHY_NOT}")

BYTES = 8 << 20
ECHO = f"""
import socket
with socket.create_server(("", 5000)) as server:
    print("listens", flush=True)
    connection = server.accept()[0]
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(20):
        connection.sendall(connection.recv(1))
    left = {BYTES}
    while left:
        left -= len(connection.recv(left))
    connection.sendall(b"x")
"""
ASK = f"""
import socket, time
with socket.create_connection(("h1", 5000), timeout=20) as connection:
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(20):
        began_at = time.monotonic()
        connection.sendall(b"x")
        connection.recv(1)
        print(time.monotonic() - began_at)
    began_at = time.monotonic()
    connection.sendall(bytes({BYTES}))
    connection.recv(1)
    print(time.monotonic() - began_at)
"""


def run(hosts, name, *command):
    done = subprocess.run([*hosts.inside(name), *command], capture_output=True, text=True, timeout=60, check=False)
    return done.stdout + done.stderr


@contextlib.contextmanager
def background(hosts, name, *command):
    with subprocess.Popen([*hosts.inside(name), *command], stdout=subprocess.PIPE, text=True) as process:
        yield process
        process.kill()


def namespaces():
    found = set()
    for path in Path("/proc").glob("[0-9]*/ns/net"):
        with contextlib.suppress(OSError):
            found.add(str(path.readlink()))
    return found


def test_hosts_have_names_and_leave_nothing():
    with EmulatedHosts(2) as hosts:
        assert run(hosts, "h1", "hostname") == "h1\n"
        theirs = {run(hosts, name, "readlink", "/proc/self/ns/net").strip() for name in hosts.names}
        assert len(theirs & namespaces()) == 2
        answer = subprocess.run(
            [hosts.agent, "-x", "-p", "22", "h1", "hostname; pwd; env"],
            capture_output=True,
            text=True,
            timeout=60,
            check=True,
            env=os.environ | {"SECRET": "of this machine"},
        ).stdout
        assert answer.startswith(f"h1\n{Path.home()}\n")
        assert "SECRET" not in answer
        assert (
            subprocess.run([hosts.agent, "h7", "true"], capture_output=True, timeout=60, check=False).returncode == 255
        )
        with background(hosts, "h1", "sleep", "60") as sleeper:
            wait_until(lambda: hosts.processes("h1") == [sleeper.pid], "its process")
            hosts.kill_host("h1")
            assert sleeper.wait(10) == -9
        assert hosts.processes("h1") == []
        assert (
            subprocess.run([hosts.agent, "h1", "true"], capture_output=True, timeout=60, check=False).returncode == 255
        )
        with background(hosts, "h0", "sleep", "60") as sleeper:
            wait_until(lambda: hosts.processes("h0"), "a process that is there at the end")
            folder = hosts.agent.parent
            hosts.__exit__()
            assert sleeper.wait(10) == -9
    assert not folder.exists()
    wait_until(lambda: not theirs & namespaces(), "the end of the namespaces")


@pytest.mark.parametrize("delay_s", [0.0, 0.005])
def test_links_take_their_time(delay_s):
    with EmulatedHosts(2, delay_s=delay_s, bits_per_s=2e8) as hosts:
        with background(hosts, "h1", sys.executable, "-c", ECHO) as server:
            assert server.stdout.readline() == "listens\n"
            *round_trips, whole = map(float, run(hosts, "h0", sys.executable, "-c", ASK).split())
        assert min(round_trips) > 2 * delay_s
        assert statistics.median(round_trips) < 2 * delay_s + 0.02
        # The burst that tbf lets through is 128 KiB, some percent of it.
        assert 0.9 * 8 * BYTES / 2e8 < whole < 10 * 8 * BYTES / 2e8


@pytest.mark.parametrize("delay_s", [0.0, 0.001])
def test_cable_is_taken_out_and_put_in_again(delay_s):
    connect = "import socket; socket.create_connection(('h1', 5000), timeout=1); print('connected')"
    with EmulatedHosts(2, delay_s=delay_s) as hosts, background(hosts, "h1", sys.executable, "-c", ECHO) as server:
        assert server.stdout.readline() == "listens\n"
        hosts.cut("h1")
        assert "timed out" in run(hosts, "h0", sys.executable, "-c", connect)
        hosts.restore("h1")
        wait_until(lambda: run(hosts, "h0", sys.executable, "-c", connect) == "connected\n", "a connection", limit_s=30)
