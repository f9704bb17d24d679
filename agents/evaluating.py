"""Agents that are evaluated while they train: what applications of agents have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

from hsa2c.agents.words import EVALUATED
from hsa2c.application import Application
from hsa2c.dpsgd.protocols import Vector
from hsa2c.observe.shown import Field
from hsa2c.tracker import Evaluation


class AgentApplication(Application):
    """An application whose configuration has `hsa2c.agents.settings.EvaluationConfig`, as `evaluation`."""

    def evaluation(self, config: Any) -> Evaluation | None:
        """Whole episodes of v, as the configuration says."""
        how = config.evaluation
        if how.every_s is None:
            return None
        return Evaluation(
            evaluate=partial(self._scores, config), best="score_mean", every_s=how.every_s, limit_s=how.limit_s
        )

    def play_beside(self, config: Any, v: Vector) -> Mapping[str, Any]:
        """What `evaluate` gives, beside training: in one thread, and nothing is shown."""
        how = config.evaluation
        scores: Mapping[str, Any] = self.evaluate(config, v, games=how.episodes, greedy=how.greedy, seed=how.seed)  # type: ignore[call-arg]
        return scores

    def _scores(self, config: Any, v: Vector) -> dict[str, float]:
        played, result = config.evaluation.episodes, self.play_beside(config, v)
        return {
            **{f"score_{name}": result[name] for name in ("mean", "std", "min", "max")},
            "length_mean_steps": result["agent_steps"] / played,
            "episodes": played,
        }

    def shown(self, config: Any) -> Sequence[Field]:
        """Also the last evaluation, where there are some."""
        fields = list(self.fields)
        if config.evaluation.every_s is not None:
            best = [field.key for field in fields].index("score/best_mean_100")
            fields.insert(best + 1, EVALUATED)
        return fields

    def drawn(self, config: Any) -> Sequence[str]:
        """Also the evaluations, where there are some."""
        tags = super().drawn(config)
        return tags if config.evaluation.every_s is None else (*tags, EVALUATED.key)
