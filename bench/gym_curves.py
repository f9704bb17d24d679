"""Pictures of `bench.gym`: curves of each system, by agent steps and by minutes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from hsa2c.observe.plot import COLOURS, STYLE, save

if TYPE_CHECKING:
    from matplotlib.axes import Axes

NAMES = {"hsa2c": "hsa2c", "ppo": "SB3 PPO", "a2c": "SB3 A2C"}

_POINTS = 200  # across a panel


def draw(results: Sequence[dict[str, Any]], output: Path) -> None:
    """A row for each environment: medians of the mean scores of 100 episodes, and their range over the seeds.

    Args:
        results: Runs of `bench.gym`; ``curve`` has agent steps, seconds and the score.
        output: The picture to write.

    Raises:
        hsa2c.errors.ConfigError: See `hsa2c.observe.plot.save`.
    """
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    envs = list(dict.fromkeys(result["env"] for result in results))
    with rc_context(STYLE):
        figure = Figure(figsize=(9, 2.8 * len(envs)), dpi=120, layout="constrained")
        panels = figure.subplots(len(envs), 2, squeeze=False, sharey="row")
        for env, (by_steps, by_minutes) in zip(envs, panels, strict=True):
            runs = [result for result in results if result["env"] == env]
            _panel(by_steps, runs, 0, 1e-3)
            _panel(by_minutes, runs, 1, 1 / 60)
            by_steps.set_ylabel(env)
        panels[-1][0].set_xlabel("agent steps (thousands)")
        panels[-1][1].set_xlabel("wall-clock minutes")
        panels[0][0].legend(loc="best")
        save(figure, output)


def _panel(axes: Axes, runs: Sequence[dict[str, Any]], column: int, scale: float) -> None:
    for system, colour in zip(NAMES, COLOURS, strict=False):
        curves = [np.asarray(run["curve"], float) for run in runs if run["system"] == system and run["curve"]]
        if not curves:
            continue
        x, scores = over_seeds([curve[:, column] * scale for curve in curves], [curve[:, 2] for curve in curves])
        axes.plot(x, np.median(scores, axis=0), color=colour, label=NAMES[system], linewidth=1.5)
        axes.fill_between(x, scores.min(axis=0), scores.max(axis=0), color=colour, alpha=0.2, linewidth=0)


def over_seeds(
    across: Sequence[NDArray[np.float64]], scores: Sequence[NDArray[np.float64]]
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Curves at the same points, from where all have begun; one that has ended keeps its last score.

    Returns:
        The points, [_POINTS], and the scores there, [curves, _POINTS].
    """
    x = np.linspace(max(each[0] for each in across), max(each[-1] for each in across), _POINTS)
    return x, np.stack([np.interp(x, each, score) for each, score in zip(across, scores, strict=True)])
