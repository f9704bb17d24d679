"""A monitor that writes down what it sees, and stops when it is told to."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from hsa2c.dpsgd.protocols import Monitor, Push, Vector


class Record(Monitor):
    """Everything that a master told its monitor, in order.

    Args:
        stop: Asked before each message; gets this record.
        rates: Rate scales for the pulls to come; the last one is repeated.
    """

    def __init__(self, stop: Callable[[Record], bool] = lambda _: False, rates: tuple[float, ...] = (1.0,)) -> None:
        self._stop = stop
        self._rates = list(rates)
        self.events: list[tuple[str, int]] = []
        self.texts: list[tuple[int, bytes]] = []
        self.states: dict[int, Vector] = {}
        self.taus: list[int] = []
        self.vs: list[Vector] = []
        self.losses: list[tuple[int, str]] = []
        self.returns: list[tuple[int, str]] = []
        self.refusals: list[int] = []
        self.slept_s = 0.0
        self.t = 0

    @property
    def deltas(self) -> int:
        """How many were received."""
        return len(self.taus)

    def reports(self) -> list[Any]:
        """Every problem's report."""
        return [item for _, text in self.texts for item in json.loads(text)]

    def stopping(self) -> bool:
        return self._stop(self)

    def rate_scale(self) -> float:
        return self._rates.pop(0) if len(self._rates) > 1 else self._rates[0]

    def heard(self, node: int, report: bytes) -> None:
        self.events.append(("heard", node))
        self.texts.append((node, report))

    def kept(self, node: int, state: Vector) -> None:
        self.events.append(("kept", node))
        self.states[node] = np.array(state)

    def received(self, push: Push, tau: int) -> None:
        self.events.append(("received", push.node))
        self.taus.append(tau)

    def lost(self, node: int, why: str) -> None:
        self.losses.append((node, why))

    def found(self, node: int, how: str) -> None:
        self.returns.append((node, how))

    def refused(self, node: int, why: str) -> None:
        self.refusals.append(node)

    def slept(self, seconds: float) -> None:
        self.slept_s += seconds

    def stepped(self, t: int, v: Vector) -> None:
        self.t = t
        self.vs.append(v.copy())
