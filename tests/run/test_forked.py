"""A job that is a copy of this process."""

import io
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from hsa2c.run.forked import fork
from tests.processes import PATIENCE_S, wait_until


@pytest.fixture
def log(tmp_path):
    with (tmp_path / "log.txt").open("w+b") as file:
        yield file


def said(log):
    log.seek(0)
    return log.read().decode()


def test_it_does_what_it_is_told_and_ends_with_its_code(log, monkeypatch):
    monkeypatch.setattr(sys, "stdout", io.StringIO())  # as a notebook's is: a thread's
    seen = object()

    def be(arguments):
        print(arguments, os.environ["OWN"], os.getsid(0) == os.getpid(), sys.stdin.read() == "", id(seen))
        print("ünï", file=sys.stderr)
        os.write(1, b"native\n")
        return 7

    job = fork(be, ["a", "b"], {"OWN": "mine"}, log)
    assert job.wait(PATIENCE_S) == job.wait() == 7
    lines = said(log).splitlines()
    assert sorted(lines) == sorted([f"['a', 'b'] mine True True {id(seen)}", "ünï", "native"])
    assert "OWN" not in os.environ
    assert sys.stdout.getvalue() == ""


@pytest.mark.parametrize("error", [LookupError("mine"), SystemExit(3), KeyboardInterrupt()])
def test_an_exception_is_in_its_log(log, error):
    def be(_):
        raise error

    assert fork(be, [], {}, log).wait(PATIENCE_S) == 1
    assert f"{type(error).__name__}" in said(log)


def test_nothing_of_the_parent_is_done_twice(log, tmp_path):
    """No exit handlers, no buffers, no frames further up."""
    file = (tmp_path / "own").open("w")
    file.write("once")
    job = fork(lambda _: 0, [], {}, log)
    assert job.wait(PATIENCE_S) == 0
    file.close()
    assert (tmp_path / "own").read_text() == "once"


def test_a_wait_has_its_limit_and_signals_end_it(log):
    job = fork(lambda _: time.sleep(PATIENCE_S) or 0, [], {}, log)
    began_at = time.monotonic()
    with pytest.raises(subprocess.TimeoutExpired):
        job.wait(0.1)
    assert time.monotonic() - began_at < 5.0
    job.terminate()
    assert job.wait(PATIENCE_S) == -signal.SIGTERM
    job.send_signal(signal.SIGKILL)  # of nobody, by now


def test_signals_are_as_the_kernel_has_them(log):
    before = signal.signal(signal.SIGUSR1, lambda *_: None)
    try:
        job = fork(lambda _: signal.pause() or 0, [], {}, log)
        wait_until(lambda: os.getpgid(job.pid) == job.pid, "its session")
        wait_until(lambda: psutil.Process(job.pid).status() == psutil.STATUS_SLEEPING, "its pause")
        job.send_signal(signal.SIGUSR1)
        assert job.wait(PATIENCE_S) == -signal.SIGUSR1
    finally:
        signal.signal(signal.SIGUSR1, before)
