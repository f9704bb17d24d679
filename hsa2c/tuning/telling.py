"""What is said of a study: a line for each trial, a table of the best, and the same as one JSON object."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hsa2c.observe.formatting import clock_text
from hsa2c.tuning.study import BEST, Study, failure_of, is_cut_off, is_pruned

if TYPE_CHECKING:
    from optuna.trial import FrozenTrial

_BEST = 5


def line(
    study: Study, trials: Sequence[FrozenTrial], trial: FrozenTrial, progress: float, best: FrozenTrial | None
) -> str:
    """A trial that has ended.

    Args:
        study: Its study.
        trials: All of that.
        trial: The trial.
        progress: Share of it that was trained.
        best: The best one so far.
    """
    done = sum(trial.state.is_finished() and not is_cut_off(trial) for trial in trials)
    head = f"{done} of {study.plan.trials}: trial {trial.number}"
    if (why := failure_of(trial)) is not None:
        return f"{head} failed: {why} | {settings_text(trial.params)}"
    value = trial.value
    said = f"{study.plan.key} {number_text(value)}" + (f", pruned at {progress:.0%}" if is_pruned(trial) else "")
    so_far = "" if best is None else f", best {number_text(best.value)} of trial {best.number}"
    return f"{head}: {said}{so_far} | {settings_text(trial.params)}"


def best_text(study: Study, best: FrozenTrial) -> str:
    """The best trial, in a line."""
    return f"{study.plan.key} {number_text(best.value)} of trial {best.number} | {settings_text(best.params)}"


def settings_text(params: Mapping[str, Any]) -> str:
    """Such as ``agent.t_max = 32, optimiser.learning_rate = 0.00123``."""
    return ", ".join(f"{field} = {value_text(value)}" for field, value in params.items())


def number_text(value: float | None) -> str:
    """A number of an objective, short."""
    return "-" if value is None else f"{value:,.6g}"


def value_text(value: Any) -> str:
    """A setting's value, short."""
    return f"{value:.4g}" if isinstance(value, float) else ("null" if value is None else str(value))


def table(study: Study) -> list[str]:
    """The best trials, a line each, and what matters among the settings; empty where none was trained to its end."""
    best, fields = study.ranked()[:_BEST], list(study.ranges)
    if not best:
        return []
    rows = [["trial", study.plan.key, *fields, "time"]]
    for trial in best:
        took = trial.duration
        values = [value_text(trial.params[field]) for field in fields]
        rows.append(
            [str(trial.number), number_text(trial.value), *values, clock_text(took.total_seconds() if took else None)]
        )
    if importance := study.importance():
        rows.append(["", "importance", *(f"{importance.get(field, 0.0):.0%}" for field in fields), ""])
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]


def summary(study: Study, picture: str | None, command: str | None) -> dict[str, Any]:
    """A study as one JSON object.

    Args:
        study: The study.
        picture: The file of its picture.
        command: The command line that trains with the best settings.
    """
    trials, ranked = study.trials(), study.ranked()
    plan = study.plan
    return {
        "study": str(study.directory),
        "objective": plan.objective,
        "trials": plan.trials,
        "complete": len(ranked),
        "pruned": sum(map(is_pruned, trials)),
        "failed": sum(failure_of(trial) is not None for trial in trials),
        "cut_off": sum(map(is_cut_off, trials)),
        "best": [
            {"trial": trial.number, "value": trial.value, "settings": trial.params, "run": str(study.run(trial.number))}
            for trial in ranked[:_BEST]
        ],
        "importance": study.importance(),
        "config": str(study.directory / BEST) if ranked else None,
        "command": command,
        "picture": picture,
    }
