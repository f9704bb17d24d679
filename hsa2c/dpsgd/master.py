"""Algorithm 1: the master (Mohamad et al. 2022). No transport, no files, no clock: those are `port` and `monitor`."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import numpy as np

from hsa2c.dpsgd.protocols import MasterPort, Monitor, Push, Vector

GlobalStep = Callable[[Vector, Vector, int], None]


def master(
    v: Vector, step: GlobalStep, port: MasterPort, monitor: Monitor, M: int, *, max_delay: int | None = None, t: int = 0
) -> int:
    """Sum M deltas, apply them, repeat until `monitor` says stop.

    Args:
        v: The global parameter, float32 [dim]; updated in place.
        step: Line 3, ``v <- v + rho * w_sum`` or its momentum form (`hsa2c.dpsgd.steps.GlobalStep`).
        port: Where deltas come from and v goes to.
        monitor: Is told of every delta and step, and decides when to stop.
        M: Deltas in one global step, whoever sends first; in proportion fewer where nodes are lost.
        max_delay: D', the delay tau from which on a delta counts for less: D' / tau. None: however old, it counts.
        t: Global steps done before, by the run that this one resumes.

    Returns:
        Global steps done, t.
    """
    w_sum = np.zeros_like(v)
    while True:
        # Line 2. Pulls are answered inside `collect` and nowhere else, so nobody reads v during line 3: that is the
        # paper's atomicity, without a lock.
        m = add_all(w_sum, port.collect(M, serving=v, t=t, monitor=monitor), t, monitor, max_delay)
        if m < port.quorum(M):  # `monitor` says stop: nothing else ends a sum before it has its deltas
            break
        step(v, w_sum, m)  # line 3: v <- v + rho * sum_m w_m
        w_sum.fill(0)
        t += 1
        monitor.stepped(t, v)

    # Paper: the end is left open; here no finished work is lost: what is on its way is the last, smaller sum.
    m += add_all(w_sum, port.drain(monitor=monitor), t, monitor, max_delay)
    if m:
        step(v, w_sum, port.quorum(M))
        t += 1
        monitor.stepped(t, v)
    return t


def add_all(w_sum: Vector, deltas: Iterable[Push], t: int, monitor: Monitor, max_delay: int | None) -> int:
    """Line 2: add each delta to the sum as it comes; gives back how many there were."""
    m = 0
    for w in deltas:
        tau = t - w.since
        add(w_sum, w, tau=tau, max_delay=max_delay)
        monitor.received(w, tau=tau)
        m += 1
    return m


def add(w_sum: Vector, w: Push, *, tau: int, max_delay: int | None) -> None:
    """Add a delta to the sum of line 2.

    # Paper: Assumption 5 bounds the delay, tau <= D', and nothing enforces it. A node that was stopped for a minute, or
    # cut off, breaks it: what it found belongs to a v that is long gone. It counts D' / tau then, so that what a delta
    # can do falls with its age.
    """
    if max_delay is None or tau <= max_delay:
        w_sum += w.delta
    else:
        w_sum += np.float32(max_delay / tau) * w.delta
