"""How long the gradients of a problem take: those that gather data first, and the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from statistics import fmean
from typing import Any, NamedTuple

from hsa2c.dpsgd.problem import Problem


class Durations(NamedTuple):
    """Of one actor-learner."""

    gradient_s: float
    """Mean seconds of a gradient alone."""
    gathering_s: float
    """Mean seconds of gathering data, for each of the gradients that they are for; 0 where none is gathered apart."""

    @property
    def mean_s(self) -> float:
        """Of an update, with its share of gathering."""
        return self.gradient_s + self.gathering_s

    @classmethod
    def mean(cls, several: Sequence[Durations]) -> Durations:
        """Of several."""
        return cls(*(fmean(each[k] for each in several) for k in range(2)))


def time_gradients(problem: Problem, u_hat: Any, seconds: float) -> Durations:
    """Time the gradients of a fresh problem for so long, a whole gathering at least; the first ones do not count.

    The problem is closed then.
    """
    rounds = problem.gathers
    _round(problem, u_hat, rounds)  # what it touches for the first time takes longer
    spent: dict[bool, list[float]] = {True: [], False: []}
    end = time.perf_counter() + seconds
    while not (spent[True] or spent[False]) or time.perf_counter() < end:
        for gathers, took in _round(problem, u_hat, rounds):
            spent[gathers].append(took)
    problem.close()
    gradient_s = fmean(spent[False]) if spent[False] else 0.0
    gathering_s = fmean(spent[True]) - gradient_s if spent[True] else 0.0
    return Durations(gradient_s, max(0.0, gathering_s) / (problem.gathered_for or 1))


def _round(problem: Problem, u_hat: Any, rounds: bool) -> list[tuple[bool, float]]:
    """The gradients of one gathering, or one of a problem that gathers nothing: whether each gathers, and seconds."""
    found: list[tuple[bool, float]] = []
    while not found or (rounds and not problem.gathers):
        gathers, began_at = problem.gathers, time.perf_counter()
        problem.gradient(u_hat, lambda: False)
        found.append((gathers, time.perf_counter() - began_at))
    return found
