"""Real processes: a fork server whose nodes are small scripts, and stand-ins for them."""

import contextlib
import os
import select
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from hsa2c.run.fork_server import listen

REPOSITORY = Path(__file__).parents[2]
PATIENCE_S = 30

SERVE = """
import os, signal, socket, sys, time
from hsa2c.run.fork_server import serve

def be(arguments):
    print("pid", os.getpid(), "parent", os.getppid(), "says", os.environ.get("WORD"), flush=True)
    if arguments == ["raise"]:
        raise LookupError("nothing there")
    if arguments == ["wait"]:
        time.sleep(60)
    if arguments == ["hear"]:
        signal.signal(signal.SIGUSR1, lambda *_: print("heard", flush=True))
        print("listens", flush=True)
        time.sleep(60)
    return int(arguments[0])

serve(socket.socket(fileno=int(sys.argv[1])), be)
"""

STAND_IN = "import sys; from hsa2c.run.fork_server import stand_in; sys.exit(stand_in(sys.argv[1], sys.argv[2:]))"


@pytest.fixture
def start():
    """Runs a script; whatever still runs at the end is killed."""
    with contextlib.ExitStack() as stack:

        def start(script, *arguments, pass_fds=(), **variables):
            process = stack.enter_context(
                subprocess.Popen(
                    [sys.executable, "-c", script, *map(str, arguments)],
                    cwd=REPOSITORY,
                    env={**os.environ, **variables},
                    pass_fds=pass_fds,
                    stdout=subprocess.PIPE,
                    stderr=subprocess.PIPE,
                    text=True,
                )
            )
            stack.callback(process.kill)
            return process

        yield start


@pytest.fixture
def fork_server(start, tmp_path):
    with listen(str(tmp_path / "socket")) as listening:
        process = start(SERVE, listening.fileno(), pass_fds=(listening.fileno(),))
    process.address = tmp_path / "socket"
    return process


def node_of(stand_in):
    """The process that a stand-in stands for."""
    return psutil.Process(int(stand_in.stdout.readline().split()[1]))


def wait_until(true):
    deadline = time.monotonic() + PATIENCE_S
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def gone(process):
    with contextlib.suppress(psutil.NoSuchProcess):
        return process.status() == psutil.STATUS_ZOMBIE
    return True


def test_node_is_a_child_of_the_fork_server_with_its_stand_ins_environment_and_output(start, fork_server):
    stand_ins = [start(STAND_IN, fork_server.address, k, WORD=f"word {k}") for k in (0, 3)]
    for k, stand_in in zip((0, 3), stand_ins, strict=True):
        out, err = stand_in.communicate(timeout=PATIENCE_S)
        assert stand_in.returncode == k, err
        assert out.split()[2:] == ["parent", str(fork_server.pid), "says", "word", str(k)]
        assert out.split()[1] not in {str(stand_in.pid), str(fork_server.pid)}


def test_exception_is_told_and_the_next_node_is_served(start, fork_server):
    failing = start(STAND_IN, fork_server.address, "raise")
    _, err = failing.communicate(timeout=PATIENCE_S)
    assert failing.returncode == 1
    assert "LookupError: nothing there" in err
    assert start(STAND_IN, fork_server.address, 0).wait(PATIENCE_S) == 0


@pytest.mark.parametrize("signum", [signal.SIGKILL, signal.SIGTERM])
def test_stand_in_ends_by_the_signal_that_ended_its_node(start, fork_server, signum):
    stand_in = start(STAND_IN, fork_server.address, "wait")
    node_of(stand_in).send_signal(signum)
    assert stand_in.wait(PATIENCE_S) == -signum


def test_node_does_not_outlive_its_stand_in(start, fork_server):
    stand_ins = [start(STAND_IN, fork_server.address, "wait") for _ in range(2)]
    first, second = map(node_of, stand_ins)
    stand_ins[0].kill()
    wait_until(lambda: gone(first))
    assert not gone(second)
    stand_ins[1].kill()
    wait_until(lambda: gone(second))


def test_nothing_outlives_the_fork_server(start, fork_server):
    stand_in = start(STAND_IN, fork_server.address, "wait")
    node = node_of(stand_in)
    fork_server.kill()
    wait_until(lambda: gone(node))
    assert stand_in.wait(PATIENCE_S) == 1
    assert "has ended" in stand_in.stderr.read()


@pytest.mark.parametrize("begun", [True, False])
def test_stand_in_does_not_wait_for_a_fork_server_that_has_ended_at_its_start(start, tmp_path, begun):
    listening = listen(str(tmp_path / "socket"))
    stand_in = start(STAND_IN, tmp_path / "socket", 5) if begun else None
    if stand_in is not None:
        select.select([listening], [], [], PATIENCE_S)  # it has connected
    failed = start("raise SystemExit(1)", pass_fds=(listening.fileno(),))
    listening.close()
    failed.wait(PATIENCE_S)
    stand_in = stand_in or start(STAND_IN, tmp_path / "socket", 5)
    _, err = stand_in.communicate(timeout=PATIENCE_S)
    assert (stand_in.returncode, err) == (1, "the process that this host's nodes are forked from has ended\n")


def test_signals_that_the_master_answers_do_not_end_a_stand_in(start, fork_server):
    stand_in = start(STAND_IN, fork_server.address, "wait")
    node = node_of(stand_in)
    for signum in (signal.SIGINT, signal.SIGUSR1):
        stand_in.send_signal(signum)
    time.sleep(0.3)
    assert stand_in.poll() is None
    assert not gone(node)
    stand_in.terminate()
    assert stand_in.wait(PATIENCE_S) == -signal.SIGTERM
    wait_until(lambda: gone(node))


def test_the_masters_stand_in_hands_on_what_asks_it_to_stop(start, fork_server):
    lead = STAND_IN.replace("sys.argv[2:]", "sys.argv[2:], master=True")
    stand_in = start(lead, fork_server.address, "hear")
    node = node_of(stand_in)
    assert stand_in.stdout.readline() == "listens\n"
    stand_in.send_signal(signal.SIGUSR1)
    assert stand_in.stdout.readline() == "heard\n"
    assert not gone(node)
    stand_in.send_signal(signal.SIGTERM)
    assert stand_in.wait(PATIENCE_S) == -signal.SIGTERM
    assert gone(node)
