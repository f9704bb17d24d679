"""What looks on at a virtual cluster's master, and what its user sees meanwhile."""

from __future__ import annotations

import dataclasses
import os
import sys
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import psutil

from hsa2c import signals
from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import NodeError
from hsa2c.run.monitor import RunMonitor
from hsa2c.simulation.clock import SimulatedClock
from hsa2c.simulation.gradients import Gradients
from hsa2c.simulation.learning_pool import LearningPool
from hsa2c.simulation.network import SimulatedMaster

_LEAST_MEMORY = 0.02  # of all: less, and the kernel would soon choose whom to end
_EVERY_S = 10.0  # between two lines of progress


class VirtualMonitor(RunMonitor):
    """A run's monitor on a simulated clock: rows and checkpoints come as often as a real run's, by this machine's time.

    Args:
        clock: The cluster's.
        port: The master's.
        gradients: What computes.
        pools: Of the nodes.
        minutes: Of this machine's time after which the run stops; None: no limit.
        pace: Seconds of the cluster in one of this machine's, about.
        rest: See `RunMonitor`.

    Attributes:
        signum: The signal that stopped the run, if one did.
    """

    def __init__(
        self,
        *,
        clock: SimulatedClock,
        port: SimulatedMaster,
        gradients: Gradients,
        pools: Sequence[LearningPool],
        minutes: float | None,
        pace: float,
        **rest: Any,
    ) -> None:
        output = rest["config"].output
        self._every_s = output.checkpoint_every_s * pace
        often = dataclasses.replace(
            output, log_every_s=min(3600.0, output.log_every_s * pace), checkpoint_every_s=min(86_400.0, self._every_s)
        )
        rest["config"] = dataclasses.replace(rest["config"], output=often)
        super().__init__(clocks=(clock, lambda: port.worked_s), **rest)
        self.signum: int | None = None
        self._gradients, self._pools = gradients, pools
        self._minutes, self._began_at = minutes, time.monotonic()
        self._states_at = clock()
        gradients.abandoned = self.hurries

    def hurries(self) -> bool:
        """Whether the end is not to wait for gradients."""
        if self._minutes is not None and time.monotonic() - self._began_at >= 60 * self._minutes:
            self.stop(f"{self._minutes:g} min of this machine")
            return True
        return self.signum is not None

    def catch_signals(self) -> None:
        """A signal stops the run in good order; a second one ends it at once."""

        def on_signal(signum: int, _: FrameType | None) -> None:
            if self.signum is not None:
                os._exit(128 + signum)
            self.signum = signum
            self.stop("asked to stop")

        signals.catch(on_signal)

    def stopping(self) -> bool:
        """See `Monitor.stopping`.

        Raises:
            NodeError: No more gradients can be computed.
        """
        if self._gradients.failure is not None:
            raise NodeError(self._gradients.failure)
        self.hurries()
        return super().stopping()

    def kept(self, node: int, state: Vector) -> None:
        """See `Monitor.kept`; a checkpoint has the states of its own moment, which are all at hand."""

    def stepped(self, t: int, v: Vector) -> None:
        """See `Monitor.stepped`."""
        if self._clock() - self._states_at >= self._every_s:
            self._keep_states()
        super().stepped(t, v)

    def save(self, v: Vector, *, measured: bool = False) -> Path:
        """See `RunMonitor.save`."""
        self._keep_states()
        return super().save(v, measured=measured)

    def _keep_states(self) -> None:
        self._states_at = self._clock()
        for node, pool in enumerate(self._pools):
            self._keeper.kept(node, pool.state())


class Shown(threading.Thread):
    """Says on stderr every few seconds how far the run is, and looks whether this machine has memory left.

    Args:
        monitor: Of the run.
        gradients: What computes.
        config: The run's.
        minutes: See `VirtualMonitor`.
    """

    def __init__(self, monitor: VirtualMonitor, gradients: Gradients, config: Any, minutes: float | None) -> None:
        super().__init__(name="progress", daemon=True)
        self._monitor, self._gradients = monitor, gradients
        self._stop_config, self._minutes = config.stop, minutes
        self._over = threading.Event()
        self._began_at = time.monotonic()
        self._before = (monitor.elapsed_s, monitor.tracker.work)

    def run(self) -> None:
        """See `threading.Thread.run`."""
        live = sys.stderr.isatty()
        while not self._over.wait(1.0 if live else _EVERY_S):
            memory = psutil.virtual_memory()
            if memory.available < _LEAST_MEMORY * memory.total:
                self._gradients.failure = f"memory: {memory.available >> 20} MiB are left of {memory.total >> 20}"
            print(
                f"\r{self.line()}\033[K" if live else self.line(), end="" if live else "\n", file=sys.stderr, flush=True
            )
        if live:
            print(file=sys.stderr)

    def close(self) -> None:
        """End it."""
        self._over.set()
        self.join()

    def line(self) -> str:
        """How far the run is."""
        real_s = time.monotonic() - self._began_at
        cluster_s, work = self._monitor.elapsed_s, self._monitor.tracker.work
        quality = self._monitor.tracker.quality
        speed, pace = (work - self._before[1]) / real_s, (cluster_s - self._before[0]) / real_s
        left_s = self._left_s(real_s, cluster_s, work, speed, pace)
        words = [f"{cluster_s:,.2f} s of the cluster", f"{work:,} ({speed:,.0f}/s)"]
        words += [] if quality is None else [f"score {quality:.2f}"]
        words += [f"{real_s / 60:.1f} min", "left: unknown" if left_s is None else f"left: {left_s / 60:.1f} min"]
        return ", ".join(words)

    def _left_s(self, real_s: float, cluster_s: float, work: int, speed: float, pace: float) -> float | None:
        limits = self._stop_config
        most_work = getattr(limits, "agent_steps", None) or getattr(limits, "updates", None)
        left = []
        if self._minutes is not None:
            left.append(60 * self._minutes - real_s)
        if limits.minutes is not None and pace > 0:
            left.append((60 * limits.minutes - cluster_s) / pace)
        if most_work is not None and speed > 0:
            left.append((most_work - work) / speed)
        return max(0.0, min(left)) if left else None
