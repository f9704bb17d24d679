"""From what problems report to curves: lives at the master, and looks at v now and then."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from hsa2c.dpsgd.protocols import Vector
from hsa2c.errors import ProblemError
from hsa2c.observe.runlog import ROW_KEYS, number

Evaluate = Callable[[Vector], Mapping[str, float]]

_OWN = ROW_KEYS | {"elapsed_s", "updates", "speed/updates_per_s"}  # of values in each row
_SHARE = 0.05  # most of the master's time that evaluating may take


def numbers(given: Any, who: str) -> dict[str, float]:
    """Numbers by name, as a row can have them.

    Args:
        given: What somebody has given as such.
        who: They, for a message.

    Raises:
        ProblemError: It is something else, or a name is that of a value which each row has.
    """
    if not isinstance(given, Mapping):
        raise ProblemError(f"{who}: gave {given!r}, must give numbers by name")
    values = {}
    for key, value in given.items():
        try:
            values[str(key)] = float(value)
        except (TypeError, ValueError):
            raise ProblemError(f"{who}: gave {key} = {value!r}, must give numbers by name") from None
    refuse_taken(values, who)
    return values


def refuse_taken(keys: Iterable[str], who: str) -> None:
    """See `numbers`."""
    if taken := sorted(_OWN.intersection(keys)):
        raise ProblemError(f"{who}: gave {', '.join(taken)}: each row has its own, must have another name")


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """How v is evaluated while training goes on, in a process beside the master's."""

    evaluate: Evaluate
    """How good v is, numbers by name; called in that process."""

    best: str
    """Which of these numbers makes a checkpoint the best one: the higher the better; after a minus, the lower."""

    every_s: float
    """Seconds from the start of one evaluation to the start of the next; more where one takes longer."""

    limit_s: float
    """Seconds that one may take; then it is ended, and counts as failed."""

    def quality(self, values: Mapping[str, Any]) -> float | None:
        """What the best checkpoint is best at, higher is better; None where it is not among `values`."""
        value = number(values.get(self.best.removeprefix("-")))
        return -value if value is not None and self.best.startswith("-") else value


class Tracker:
    """Counts updates, takes the mean of each number that problems report, and evaluates v now and then.

    An application with curves of its own overrides what it wants otherwise.

    Attributes:
        work: Units of work done in the whole run, resumes included: the horizontal axis of every curve. Here updates.

    Args:
        limit: Updates at which training ends; None: no limit.
        evaluate: How good v is, numbers by name; None: nobody asks.
        best: Which of these numbers makes a checkpoint the best one: the higher the better; after a minus, the lower.
            None: there is no best one.
        every_s: Least seconds between two evaluations; more where one takes long.
        counters: What `counters` gave before; empty at the start of a run.
        clock: Seconds; for tests.
    """

    work: int

    def __init__(
        self,
        *,
        limit: int | None = None,
        evaluate: Evaluate | None = None,
        best: str | None = None,
        every_s: float = 1.0,
        counters: Mapping[str, Any] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.work = int((counters or {}).get("updates", 0))
        self._limit = limit
        self._evaluate, self._best_key, self._every_s = evaluate, best, every_s
        self._clock = clock
        self._evaluated_at = self._clock()
        self._evaluating_s = 0.0
        self._values: dict[str, float] = {}
        self._reported: dict[str, tuple[float, int]] = {}
        self._at_row = self.work

    @property
    def quality(self) -> float | None:
        """What the best checkpoint is best at, higher is better; None while too little is known."""
        if self._best_key is None:
            return None
        value = self._values.get(self._best_key.removeprefix("-"))
        return -value if value is not None and self._best_key.startswith("-") else value

    def add(self, node: int, report: Mapping[str, Any]) -> None:
        """Take in one problem's report.

        Raises:
            ProblemError: It has the name of a value that each row has.
        """
        refuse_taken(report, f"node {node}: the report of a problem")
        for key, value in report.items():
            if (plain := number(value)) is not None:
                total, times = self._reported.get(key, (0.0, 0))
                self._reported[key] = total + plain, times + 1

    def applied(self, node: int, updates: int) -> None:
        """So many updates of u are in the delta that a node has just pushed."""
        self.work += updates

    def measure(self, v: Vector, *, due: bool) -> bool:
        """Look at v, after each global step; where `quality` is a property of v, this may be when it is measured.

        Args:
            v: The global parameter.
            due: A checkpoint of v is about to be written: `quality` must be v's.

        Returns:
            Whether `quality` was measured.
        """
        began_at = self._clock()
        wait_s = max(self._every_s, self._evaluating_s / _SHARE)
        if self._evaluate is None or (not due and began_at - self._evaluated_at < wait_s):
            return False
        self._values = numbers(self._evaluate(v), "evaluate")
        if self._best_key is not None and self._best_key.removeprefix("-") not in self._values:
            raise ProblemError(
                f"best = {self._best_key!r}: must be one of what evaluate gives: {', '.join(self._values)}"
            )
        self._evaluated_at = self._clock()
        self._evaluating_s = self._evaluated_at - began_at
        return True

    def row(self, seconds: float) -> dict[str, float | int | None]:
        """Values of the curves now; means are over the `seconds` since the last row."""
        means = {key: total / times for key, (total, times) in self._reported.items()}
        new, self._at_row, self._reported = self.work - self._at_row, self.work, {}
        return {"updates": self.work, "speed/updates_per_s": new / seconds, **means, **self._values}

    def warning(self) -> str | None:
        """What its user should worry about, as of the last row; None if nothing."""
        return None

    def counters(self) -> dict[str, Any]:
        """JSON values from which a tracker goes on when the run is resumed."""
        return {"updates": self.work}

    def reached(self) -> str | None:
        """The stop condition that holds, in words."""
        if self._limit is None or self.work < self._limit:
            return None
        return f"{self.work:,} updates (limit {self._limit:,})"

    def progress(self) -> float:
        """Share of the limit on work that is done, 0 to 1; 0 without a limit."""
        return min(1.0, self.work / self._limit) if self._limit else 0.0
