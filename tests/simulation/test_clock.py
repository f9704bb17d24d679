"""The simulated clock: who goes on when, and what ends."""

from __future__ import annotations

import math

import pytest

from hsa2c.simulation.clock import SimulatedClock


def test_order_is_that_of_time_and_then_of_scheduling() -> None:
    clock = SimulatedClock()
    seen: list[tuple[float, str]] = []

    def sleeper(name: str, seconds: float) -> None:
        for _ in range(3):
            clock.sleep(seconds)
            seen.append((clock.now, name))

    clock.start(sleeper, "a", 2.0)
    clock.start(sleeper, "b", 1.0)
    clock.start(sleeper, "c", 2.0)
    clock.call_at(2.5, lambda: seen.append((clock.now, "call")))
    clock.run()
    times = [(1, "b"), (2, "a"), (2, "c"), (2, "b"), (2.5, "call"), (3, "b"), (4, "a"), (4, "c"), (6, "a"), (6, "c")]
    assert seen == times
    assert clock.now == 6


def test_wait_ends_by_a_wake_or_by_time_and_only_once() -> None:
    clock = SimulatedClock()
    seen: list[float] = []

    def waiter() -> None:
        clock.wait(5.0)  # woken at 1, and the 5 is void
        seen.append(clock.now)
        clock.sleep(10.0)  # nobody can end a sleep
        seen.append(clock.now)
        clock.wait(12.0)
        seen.append(clock.now)

    def waker() -> None:
        for _ in range(4):
            clock.sleep(1.0)
            clock.wake(process)

    process = clock.start(waiter)
    clock.start(waker)
    clock.run()
    assert seen == [1.0, 11.0, 12.0]


def test_error_of_a_process_is_raised() -> None:
    clock = SimulatedClock()

    def fails() -> None:
        clock.sleep(1.0)
        raise ValueError("in a process")

    clock.start(fails)
    clock.start(clock.sleep, 100.0)
    with pytest.raises(ValueError, match="in a process"):
        clock.run()
    assert clock.now == 1.0
    clock.close()


def test_waiting_for_ever_is_an_error() -> None:
    clock = SimulatedClock()
    clock.start(clock.wait, math.inf)
    with pytest.raises(RuntimeError, match="every process of the simulation waits"):
        clock.run()
    clock.close()


def test_killed_ones_do_nothing_more_and_nobody_waits_for_them() -> None:
    clock = SimulatedClock()
    ended: list[str] = []

    def victim() -> None:
        try:
            clock.wait(1000.0)
        finally:
            ended.append("victim")

    def killer() -> None:
        clock.sleep(3.0)
        clock.kill(process)
        clock.kill(late := clock.start(ended.append, "never"))
        clock.kill(late)
        clock.sleep(1.0)
        ended.append("killer")

    process = clock.start(victim)
    clock.start(killer)
    clock.run()
    assert ended == ["victim", "never", "killer"]  # what was scheduled before the kill comes before it
    assert clock.now == 4.0
