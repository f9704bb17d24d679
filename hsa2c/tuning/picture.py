"""The picture of a study: its trials one after another, and each setting that was tried against what came of it."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import TYPE_CHECKING

from hsa2c.observe.plot import COLOURS, SMALL_ACROSS, STYLE, save
from hsa2c.tuning.study import Study, is_pruned
from hsa2c.tuning.telling import value_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from optuna.trial import FrozenTrial

_PRUNED = "#999999"


def draw(study: Study, output: Path, label: str) -> None:
    """Draw a study of which a trial at least was trained to its end.

    Args:
        study: The study.
        output: The file to write; its ending tells the format.
        label: What the objective is called.

    Raises:
        ConfigError: The file cannot be written.
    """
    from matplotlib import rc_context

    with rc_context(STYLE):
        save(_figure(study, label), output)


def _figure(study: Study, label: str) -> Figure:
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    whole = sorted(study.ranked(), key=lambda trial: trial.number)
    pruned = [trial for trial in study.trials() if is_pruned(trial) and trial.value is not None]
    across = min(len(study.ranges), SMALL_ACROSS)
    down = math.ceil(len(study.ranges) / across)
    figure = Figure(figsize=(9, 4 + 2.6 * down), dpi=120, layout="constrained")
    grid = figure.add_gridspec(1 + down, across, height_ratios=[4, *[2.6] * down])
    large = figure.add_subplot(grid[0, :])
    _points(large, [trial.number for trial in whole], whole, [trial.number for trial in pruned], pruned)
    best = list(itertools.accumulate((trial.value or 0.0 for trial in whole), min if study.plan.falls else max))
    large.step([trial.number for trial in whole], best, where="post", color=COLOURS[1], label="best so far")
    large.xaxis.set_major_locator(MaxNLocator(integer=True))
    large.set_xlabel("trial")
    large.set_ylabel(label)
    large.set_title(label.capitalize(), loc="left", pad=10)
    large.legend(loc="best")
    for i, field in enumerate(study.ranges):
        axes = figure.add_subplot(grid[1 + i // across, i % across], sharey=large)
        _slice(axes, study, field, whole, pruned)
    return figure


def _slice(axes: Axes, study: Study, field: str, whole: list[FrozenTrial], pruned: list[FrozenTrial]) -> None:
    """One setting against the objective."""
    tried = study.ranges[field]

    def places(trials: list[FrozenTrial]) -> list[float]:
        values = [trial.params[field] for trial in trials]
        return [tried.choices.index(value) for value in values] if tried.choices else values

    _points(axes, places(whole), whole, places(pruned), pruned)
    if tried.choices:
        axes.set_xticks(range(len(tried.choices)), [value_text(choice) for choice in tried.choices])
        axes.set_xlim(-0.5, len(tried.choices) - 0.5)
    elif tried.log:
        axes.set_xscale("log")
    axes.set_xlabel(field, fontsize=9)
    axes.tick_params(which="both", labelsize=8)


def _points(
    axes: Axes, at: list[float], whole: list[FrozenTrial], pruned_at: list[float], pruned: list[FrozenTrial]
) -> None:
    if pruned:
        axes.scatter(pruned_at, [trial.value or 0.0 for trial in pruned], s=14, color=_PRUNED, label="pruned")
    axes.scatter(at, [trial.value or 0.0 for trial in whole], s=18, color=COLOURS[0], label="trained to its end")
