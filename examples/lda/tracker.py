"""From reports and measurements to learning curves of topics: lives at the master."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

from hsa2c.dpsgd.protocols import Vector
from hsa2c.examples.lda.dpsvi import Model
from hsa2c.examples.lda.perplexity import HeldOut, Score
from hsa2c.examples.lda.settings import TopicStopConfig, limit_documents
from hsa2c.tracker import Tracker

_SHARE = 0.05  # most of the master's time that measuring may take
_GAIN = 0.001  # relative fall of the perplexity that counts as one


class TopicTracker(Tracker):
    """Documents, speed, perplexity: a `hsa2c.application.Tracker`.

    Args:
        nodes: How many there are.
        documents: Of the training set, D.
        validation: What quality is measured on; None: it never is.
        model: The model.
        limits: When to stop.
        every_s: Seconds between two measurements.
        counters: What `counters` gave before, empty at the start of a run.

    Attributes:
        work: Documents processed in the whole run.
        quality: Minus the perplexity of the validation documents, as last measured.
    """

    def __init__(
        self,
        nodes: int,
        documents: int,
        validation: HeldOut | None,
        model: Model,
        *,
        limits: TopicStopConfig,
        every_s: float,
        counters: Mapping[str, Any],
    ) -> None:
        self.work: int = counters.get("documents", 0)
        self._updates: int = counters.get("updates", 0)
        self._negative: int = counters.get("negative", 0)
        self._best: float | None = counters.get("best_perplexity")
        self._to_beat: float | None = counters.get("perplexity_to_beat")
        self._without_gain: int = counters.get("measurements_without_gain", 0)
        self._nodes = nodes
        self._documents = documents
        self._validation = validation
        self._model = model
        self._limits = limits
        self._every_s = every_s
        self._score: Score | None = None
        self._measured_at = time.monotonic()
        self._measuring_s = 0.0
        self._clear()

    def _clear(self) -> None:
        self._new = {"documents": 0, "updates": 0, "words": 0, "iterations": 0}
        self._seconds: dict[str, float] = {}
        self._eta: float | None = None

    @property
    def quality(self) -> float | None:
        """See the class."""
        return None if self._score is None else -self._score.perplexity

    def add(self, node: int, report: Mapping[str, Any]) -> None:
        """Take in what `hsa2c.examples.lda.dpsvi.DPSVI.report` gave."""
        self.work += report["documents"]
        self._updates += report["updates"]
        self._negative += report["negative"]
        for key in self._new:
            self._new[key] += report[key]
        self._eta = report["eta"] or self._eta
        for seconds in (report["seconds"], report.get("pool_s", {})):
            for key, value in seconds.items():
                self._seconds[key] = self._seconds.get(key, 0.0) + value

    def applied(self, node: int, updates: int) -> None:
        """Work is counted in documents."""

    def measure(self, v: Vector, *, due: bool) -> bool:
        """See `Tracker.measure`: perplexity of the validation documents, now and then, or when `due`."""
        if self._validation is None:
            return False
        began_at = time.monotonic()
        if not due and began_at - self._measured_at < max(self._every_s, self._measuring_s / _SHARE):
            return False
        self._score = self._validation.score(v, self._model)
        self._measured_at = time.monotonic()
        self._measuring_s = self._measured_at - began_at
        perplexity = self._score.perplexity
        self._best = perplexity if self._best is None else min(self._best, perplexity)
        if self._to_beat is None or perplexity < self._to_beat * (1.0 - _GAIN):
            self._to_beat, self._without_gain = perplexity, 0
        else:
            self._without_gain += 1
        return True

    def row(self, seconds: float) -> dict[str, float | int | None]:
        """Values of the curves now; means are over the `seconds` since the last row."""
        spent = sum(self._seconds.values())
        new, score = self._new, self._score
        row: dict[str, float | int | None] = {
            "documents": self.work,
            "passes": self.work / self._documents,
            "updates": self._updates,
            "perplexity/validation": None if score is None else score.perplexity,
            "perplexity/best": self._best,
            "bound/per_token": None if score is None else score.bound_per_token,
            "speed/documents_per_s": new["documents"] / seconds,
            "speed/updates_per_s": new["updates"] / seconds,
            "local_step/iterations": new["iterations"] / new["documents"] if new["documents"] else None,
            "batch/words": new["words"] / new["updates"] if new["updates"] else None,
            "guard/negative_entries": self._negative,
            "rate/eta": self._eta,
            **{f"time/{key}_share": value / spent if spent else None for key, value in self._seconds.items()},
        }
        self._clear()
        return row

    def warning(self) -> str | None:
        """Nothing to worry about is known here; the positivity of lambda was checked at the start."""
        return None

    def counters(self) -> dict[str, Any]:
        """JSON values from which a tracker goes on when the run is resumed."""
        return {
            "documents": self.work,
            "updates": self._updates,
            "negative": self._negative,
            "best_perplexity": self._best,
            "perplexity_to_beat": self._to_beat,
            "measurements_without_gain": self._without_gain,
        }

    def reached(self) -> str | None:
        """The stop condition that holds, in words."""
        limits, limit = self._limits, limit_documents(self._limits, self._documents)
        if limit is not None and self.work >= limit:
            return f"{self.work:,} documents (limit {limit:,})"
        if self._score and limits.perplexity is not None and self._score.perplexity <= limits.perplexity:
            return f"perplexity {self._score.perplexity:,.1f} of the validation documents (goal {limits.perplexity:,g})"
        if limits.patience is not None and self._without_gain >= limits.patience:
            return f"perplexity has not fallen for {self._without_gain} measurements"
        return None

    def progress(self) -> float:
        """Share of the limit on documents that is done; 0 without a limit."""
        limit = limit_documents(self._limits, self._documents)
        return min(1.0, self.work / limit) if limit else 0.0
