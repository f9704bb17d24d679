"""Runs that work in turns: one goes on for some seconds while all others are stopped (SIGSTOP), then the next.

What the machine does beside them changes from minute to minute by more than what is to be told apart. Turns of seconds
give each run its share of every minute, where whole runs one after the other would each get minutes of its own.

A run that was stopped finds the wall-clock put forward: what it measures of its own time has to leave that out, as a
node does for --B auto (`hsa2c.transport.waiting.WorkingClock`).
"""

from __future__ import annotations

import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from bench.testbed.emulated_hosts import EmulatedHosts


@dataclass(frozen=True)
class Turn:
    """When one run worked, seconds since 1970."""

    start: float
    end: float


def take_turns(several: Sequence[EmulatedHosts], rounds: int, seconds: float) -> list[list[Turn]]:
    """Let the runs on each of `several` work in turns; all are stopped before and after.

    Args:
        several: Hosts; of each, all processes.
        rounds: How many turns each has. Each round begins with another.
        seconds: Length of a turn.

    Returns:
        The turns of each.
    """
    turns: list[list[Turn]] = [[] for _ in several]
    for number in range(rounds):
        for place in np.roll(range(len(several)), -number):
            start = time.time()
            signal_all(several[place], signal.SIGCONT)
            time.sleep(seconds)
            signal_all(several[place], signal.SIGSTOP)
            turns[place].append(Turn(start, time.time()))
    return turns


def signal_all(hosts: EmulatedHosts, number: signal.Signals) -> None:
    """Send a signal to every process on these hosts."""
    for name in hosts.names:
        hosts.signal(name, number)


def worked_s(turns: Sequence[Turn], at: float) -> float:
    """Seconds that a run had worked at a time, of those of its turns."""
    return sum(min(at, turn.end) - turn.start for turn in turns if turn.start < at)


def speed(history: Sequence[Mapping[str, Any]], turns: Sequence[Turn], work: str) -> float:
    """Work a second of a run in its turns: the slope through all rows that were written in them.

    Args:
        history: Rows, with the "time" at which they were written.
        turns: Of this run.
        work: The rows' count of work.

    Raises:
        SystemExit: There are no two rows to tell it from.
    """
    within = [row for row in history if any(turn.start <= row["time"] <= turn.end for turn in turns)]
    seconds = [worked_s(turns, row["time"]) for row in within]
    if len(set(seconds)) < 2:
        raise SystemExit(f"{len(within)} rows in {len(turns)} turns: too few to tell a speed from")
    slope, _ = np.polyfit(seconds, [row[work] for row in within], 1)
    return float(slope)
