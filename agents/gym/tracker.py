"""Learning curves of episodes: those of games, under the names that fit any environment."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hsa2c.agents.games import GameTracker


class EpisodeTracker(GameTracker):
    """A `hsa2c.tracker.Tracker` of agents in any environment.

    Args:
        nodes: How many there are.
        num_actions: Of a Discrete action space, whose policy may stall; 1 for any other.
        limit_agent_steps: See `hsa2c.agents.gym.settings.EpisodeStopConfig`, as the next two.
        limit_episodes: See there.
        limit_score: See there.
        counters: What `counters` gave before; empty at the start of a run.
    """

    played = "episodes"

    def __init__(
        self,
        nodes: int,
        num_actions: int,
        *,
        limit_agent_steps: int | None,
        limit_episodes: int | None,
        limit_score: float | None,
        counters: Mapping[str, Any],
    ) -> None:
        super().__init__(
            nodes, num_actions, limit_agent_steps=limit_agent_steps, limit_score=limit_score, counters=counters
        )
        self._limit_episodes = limit_episodes
        self._faults: int = counters.get("env_faults", 0)
        self._fault, self._told_fault = "", ""

    def add(self, node: int, report: Mapping[str, Any]) -> None:
        """Take in what `hsa2c.agents.gym.problem.ActorCritic.report` gave."""
        super().add(node, report)
        self._faults += report["env_faults"]
        self._fault = report["env_fault"] or self._fault

    def row(self, seconds: float) -> dict[str, float | int | None]:
        """See `Tracker.row`."""
        row = super().row(seconds)
        row["episodes"] = row.pop("games")
        row["length/mean_steps"] = row.pop("length/mean_frames")
        row["faults/environments"] = self._faults
        return row

    def warning(self) -> str | None:
        """Environments that failed, or training that has stalled."""
        fault, self._fault = self._fault, ""
        return f"an environment was made anew: {fault}" if fault else super().warning()

    def counters(self) -> dict[str, Any]:
        """See `Tracker.counters`."""
        return {**super().counters(), "env_faults": self._faults}

    def reached(self) -> str | None:
        """The stop condition that holds, in words."""
        games = self.games
        if self._limit_episodes is not None and games >= self._limit_episodes:
            return f"{games:,} episodes (limit {self._limit_episodes:,})"
        return super().reached()
