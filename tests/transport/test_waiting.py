"""Waiting that ends, and does not count what nobody waited; a clock that stands still while its process does."""

import os
import signal
import subprocess
import sys
import time

import pytest

from hsa2c.transport.waiting import LONGEST_LOOK_S, Patience, WorkingClock


class Clock:
    def __init__(self) -> None:
        self.now_s = 50.0

    def __call__(self) -> float:
        return self.now_s


def test_ends_after_its_limit() -> None:
    clock = Clock()
    patience = Patience(3.0, clock=clock)
    assert patience.left_s() == 3.0
    left = []
    for _ in range(6):
        clock.now_s += 0.5
        left.append(patience.left_s())
    assert left == pytest.approx([2.5, 2.0, 1.5, 1.0, 0.5, 0.0])


def test_a_stop_counts_as_one_long_look() -> None:
    clock = Clock()
    patience = Patience(3.0, clock=clock)
    clock.now_s += 86_400.0
    assert patience.left_s() == pytest.approx(3.0 - LONGEST_LOOK_S)
    clock.now_s += 0.25
    assert patience.left_s() == pytest.approx(1.75)


def test_the_clock_stands_still_for_a_stop() -> None:
    """A stop counts as one look."""
    wall = Clock()
    clock = WorkingClock(clock=wall, look_s=0.25)
    wall.now_s += 0.75
    assert clock() == pytest.approx(0.75)
    wall.now_s += 86_400.0
    assert clock() == pytest.approx(1.0)
    wall.now_s += 0.5
    assert clock() == pytest.approx(1.5)


_TELLING = """
import sys, time
from hsa2c.transport.waiting import WorkingClock
with WorkingClock() as clock:
    print("ready", flush=True)
    sys.stdin.readline()  # nobody looks at the clock until then, but its own thread
    print(clock(), flush=True)
"""


def test_a_process_that_is_stopped_does_not_count_that() -> None:
    with subprocess.Popen([sys.executable, "-c", _TELLING], stdin=-1, stdout=-1, text=True) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdout.readline()
        began_at = time.monotonic()
        time.sleep(0.5)
        os.kill(process.pid, signal.SIGSTOP)
        time.sleep(1.8)
        os.kill(process.pid, signal.SIGCONT)
        time.sleep(0.5)
        process.stdin.write("\n")
        process.stdin.flush()
        seconds = float(process.stdout.readline())
        assert 0.9 <= seconds <= time.monotonic() - began_at - 1.3
