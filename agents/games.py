"""From actor-learners' reports to learning curves: what the master knows of the games."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Any, ClassVar

import numpy as np

from hsa2c.agents.stall import stall
from hsa2c.tracker import Tracker

_SPEED_S = 20.0  # a process may play for 5 s and then learn for as long: a row sees the one or the other, a speed both
_WINDOW = 100  # games in the mean that curves, the best checkpoint and the stop condition speak of


class GameTracker(Tracker):
    """Scores, lengths, losses and speeds over all nodes: a `hsa2c.application.Tracker`.

    Args:
        nodes: How many there are.
        num_actions: Of the game.
        limit_agent_steps: Stop after so many; None: never.
        limit_score: Stop when the mean score of the last 100 games is at least this; None: never.
        counters: What `counters` gave before, empty at the start of a run.

    Attributes:
        work: Agent steps in the whole run.
        quality: Mean score of the last 100 games; None until there were 100.
    """

    played: ClassVar[str] = "games"
    """What its user calls them."""

    def __init__(
        self,
        nodes: int,
        num_actions: int,
        *,
        limit_agent_steps: int | None,
        limit_score: float | None,
        counters: Mapping[str, Any],
    ) -> None:
        self.work: int = counters.get("agent_steps", 0)
        self._updates: int = counters.get("updates", 0)
        self._games: int = counters.get("games", 0)
        self._scores: deque[float] = deque(counters.get("last_scores", ()), maxlen=_WINDOW)
        self._best: float | None = counters.get("best_mean_score")
        self._best_at: int = counters.get("best_mean_score_at", self.work)
        self._stall: str | None = None
        self._limit_agent_steps = limit_agent_steps
        self._limit_score = limit_score
        self._nodes = nodes
        self._num_actions = num_actions
        self._played: deque[tuple[float, dict[int, int]]] = deque()  # of the last rows: seconds, agent steps by node
        self._clear()

    def _clear(self) -> None:
        self._new_scores: list[float] = []
        self._new_frames: list[int] = []
        self._new_steps = dict.fromkeys(range(self._nodes), 0)  # a spare that works has a number above these
        self._new_updates = 0
        self._new_rollouts = 0
        self._sums: dict[str, float] = {}
        self._rollout_sums: dict[str, float] = {}
        self._seconds: dict[str, float] = {}

    @property
    def games(self) -> int:
        """Whole games so far."""
        return self._games

    @property
    def quality(self) -> float | None:
        """See the class."""
        return self._mean() if len(self._scores) == _WINDOW else None

    def add(self, node: int, report: Mapping[str, Any]) -> None:
        """Take in what `hsa2c.agents.problem.AtariProblem.report` gave."""
        self.work += report["agent_steps"]
        self._new_steps[node] = self._new_steps.get(node, 0) + report["agent_steps"]
        self._updates += report["updates"]
        self._new_updates += report["updates"]
        self._new_rollouts += report["rollouts"]
        _accumulate(self._sums, report["update_sums"])
        _accumulate(self._rollout_sums, report["rollout_sums"])
        _accumulate(self._seconds, report["seconds"])
        _accumulate(self._seconds, report.get("pool_s", {}))
        for score, frames in report["games"]:
            self._games += 1
            self._scores.append(score)
            self._new_scores.append(score)
            self._new_frames.append(frames)
            quality = self.quality
            if quality is not None and (self._best is None or quality > self._best):
                self._best, self._best_at = quality, self.work

    def measure(self, v: Any, *, due: bool) -> bool:
        """Quality comes from the games that are played anyway."""
        return False

    def applied(self, node: int, updates: int) -> None:
        """Work is counted in agent steps."""

    def row(self, seconds: float) -> dict[str, float | int | None]:
        """Values of the curves now; means are over the `seconds` since the last row, agent steps/s over the last 20."""
        speeds = self._speeds(seconds)
        spent = sum(self._seconds.values())
        row: dict[str, float | int | None] = {
            "agent_steps": self.work,
            "updates": self._updates,
            "games": self._games,
            "score/mean_100": self._mean(),
            "score/best_mean_100": self._best,
            "score/last": float(np.mean(self._new_scores)) if self._new_scores else None,
            "length/mean_frames": float(np.mean(self._new_frames)) if self._new_frames else None,
            "speed/agent_steps_per_s": sum(speeds.values()),
            "speed/updates_per_s": self._new_updates / seconds,
            **{f"speed/node_{node:02d}": speed for node, speed in speeds.items()},
            **{key: value / max(self._new_updates, 1) for key, value in self._sums.items()},
            **{key: value / max(self._new_rollouts, 1) for key, value in self._rollout_sums.items()},
            **{f"time/{key}_share": value / spent if spent else None for key, value in self._seconds.items()},
        }
        self._stall = stall(
            without_gain=self.work - self._best_at,
            nodes=self._nodes,
            entropy=row.get("policy/entropy"),
            num_actions=self._num_actions,
        )
        row["score/stalled"] = int(self._stall is not None)
        self._clear()
        return row

    def _speeds(self, seconds: float) -> dict[int, float]:
        """Agent steps/s of each node over the last rows that are 20 s together, fewer at first, this one at least."""
        self._played.append((seconds, self._new_steps))
        while sum(took for took, _ in self._played) - self._played[0][0] >= _SPEED_S:
            self._played.popleft()
        over_s = sum(took for took, _ in self._played)
        nodes = dict.fromkeys(node for _, steps in self._played for node in steps)
        return {node: sum(steps.get(node, 0) for _, steps in self._played) / over_s for node in nodes}

    def warning(self) -> str | None:
        """As of the last row: why training seems to have stalled."""
        return self._stall

    def counters(self) -> dict[str, Any]:
        """JSON values from which a tracker goes on when the run is resumed."""
        return {
            "agent_steps": self.work,
            "updates": self._updates,
            "games": self._games,
            "last_scores": list(self._scores),
            "best_mean_score": self._best,
            "best_mean_score_at": self._best_at,
        }

    def reached(self) -> str | None:
        """The stop condition that holds, in words."""
        if self._limit_agent_steps is not None and self.work >= self._limit_agent_steps:
            return f"{self.work:,} agent steps (limit {self._limit_agent_steps:,})"
        quality = self.quality
        if self._limit_score is not None and quality is not None and quality >= self._limit_score:
            return f"mean score {quality:.2f} of the last {_WINDOW} {self.played} (goal {self._limit_score:g})"
        return None

    def progress(self) -> float:
        """Share of the limit on agent steps that is done; 0 without a limit."""
        return min(1.0, self.work / self._limit_agent_steps) if self._limit_agent_steps else 0.0

    def _mean(self) -> float | None:
        return float(np.mean(self._scores)) if self._scores else None


def _accumulate(sums: dict[str, float], values: Mapping[str, float]) -> None:
    for key, value in values.items():
        sums[key] = sums.get(key, 0.0) + value
