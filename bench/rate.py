"""The rate of Corollary 1, seen: ``python -m bench.rate``.

Both algorithms over a simulated clock, lock-free processes with their delays included, minimise a function that is not
convex: robust regression (Geman and McClure's loss), where outliers are in the data. The rates are those of Eq. 9, and
T, M, p and B are varied one by one. By Corollary 1 the mean squared norm of the gradient, over the global steps, falls
as (T M p B)^(-1/2): each of the four lines has the slope -1/2 on logarithmic axes, which is checked and drawn.

With `--real` also by real processes, MPI ranks and lock-free actor-learners (`bench.rate_real`): four more lines, on a
panel beside the others. Each of those runs is kept in `--run-dir` as soon as it has ended, and not made again.
"""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from bench.robust_regression import DIM, MU, RobustRegression, Row, Setting
from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import Monitor, Push, Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.dpsgd.theory import equal_rates
from hsa2c.dpsgd.worker import worker
from hsa2c.simulation.clock import SimulatedClock
from hsa2c.simulation.links import Link, Sizes
from hsa2c.simulation.network import connect
from hsa2c.simulation.process_pool import UpdateTimes
from hsa2c.simulation.stepped_pool import SteppedPool

_LINK = Link(bytes_per_s=125e6, latency_s=1e-4)
_SIZES = Sizes(v=270_000, delta=270_000, state=0, text=100)


class Norms(Monitor):
    """Adds up squared norms of gradients until T steps are done."""

    def __init__(self, f: RobustRegression, T: int) -> None:
        self._f, self._T = f, T
        self._t = 0
        self._total = 0.0
        self.tau_max = 0

    @property
    def mean(self) -> float:
        """Over the first T steps."""
        return self._total / self._T

    def stopping(self) -> bool:
        """See `Monitor`."""
        return self._t >= self._T

    def received(self, push: Push, tau: int) -> None:
        """See `Monitor`."""
        self.tau_max = max(self.tau_max, tau)

    def stepped(self, t: int, v: Vector) -> None:
        """See `Monitor`."""
        if t <= self._T:
            self._total += float(np.sum(self._f.gradient(v) ** 2))
        self._t = t


def mean_squared_norm(f: RobustRegression, setting: Setting, seed: int) -> tuple[float, int]:
    """Of one run, and its largest delay between nodes."""
    s = setting
    rate = equal_rates(f, MU, T=s.T, M=s.M, B_tilde=s.p * s.B)
    clock = SimulatedClock()
    times = UpdateTimes(0.01, 0.3, seed=seed)
    monitor = Norms(f, s.T)
    port, workers = connect(clock, s.M, node_link=_LINK, sizes=_SIZES)

    def step(u: Vector, g: Any, rate_scale: float) -> None:
        u -= (rate * rate_scale * g).astype(np.float32)

    def lead() -> None:
        v = np.zeros(DIM, np.float32)
        if port.assemble(monitor):
            master(v, GlobalStep(rate, 0.0, DIM), port, monitor, s.M)

    clock.start(lead)
    for node, end in enumerate(workers):
        problems = [Row(f, (seed, node, k)) for k in range(s.p)]
        clock.start(worker, end, SteppedPool(problems, step, DIM, clock, times), s.B)
    clock.run()
    return monitor.mean, monitor.tau_max


def slope(products: Sequence[int], norms: Sequence[Sequence[float]]) -> tuple[float, float]:
    """Of log mean squared norm over log T M p B, and half its 95 % confidence interval.

    Args:
        products: T M p B of each setting.
        norms: Of each setting, one for each seed; each seed is a fit.
    """
    from scipy.stats import t

    x = np.log(products)
    fits = [np.polyfit(x, np.log(line), 1)[0] for line in np.array(norms).T]
    error = np.std(fits, ddof=1) / math.sqrt(len(fits))
    return float(np.mean(fits)), float(error * t.ppf(0.975, len(fits) - 1))


Run = Callable[[Setting, int], tuple[float, int]]
"""Mean squared norm, and the largest delay between nodes, of a setting and a seed."""


def main(arguments: list[str] | None = None) -> int:
    """Run, print and draw; the exit code is 1 if a slope is not -1/2 within its error bars."""
    options = _parse(arguments)
    f = RobustRegression()
    base = Setting(T=options.T, M=2, p=2, B=2)
    groups = {
        "simulated": _lines(
            partial(mean_squared_norm, f), _doubled(base, options.doublings), options.seeds, options.tolerance
        )
    }
    if options.real:
        from bench.rate_real import measured

        # M from 1: with three doublings 8 nodes are enough for two cores.
        base = Setting(T=options.T, M=2, p=1, B=2)
        settings = _doubled(base, options.real_doublings) | _doubled(replace(base, M=1), options.real_doublings, "M")
        run = partial(measured, f, run_dir=options.run_dir)
        groups["real"] = _lines(run, settings, options.real_seeds, options.tolerance)
    output = options.output or options.run_dir / "rate.png"
    _draw(groups, output)
    if options.json:
        print(json.dumps({"lines": groups["simulated"], **groups, "picture": str(output)}))
    else:
        for group, lines in groups.items():
            for line in lines:
                word = "holds" if line["holds"] else "does not hold"
                found = f"slope {line['slope']:.3f}, 95 % within {line['error']:.3f}; -1/2 {word}"
                print(f"{group}, over {line['varied']}: {found}")
        print(output)
    return 0 if all(line["holds"] for lines in groups.values() for line in lines) else 1


def _doubled(base: Setting, doublings: int, letters: str = "TMpB") -> dict[str, list[Setting]]:
    """Settings in which one letter is doubled again and again, for each letter."""
    return {
        letter: [replace(base, **{letter: getattr(base, letter) * 2**k}) for k in range(doublings + 1)]
        for letter in letters
    }


def _lines(run: Run, by_letter: Mapping[str, Sequence[Setting]], seeds: int, tolerance: float) -> list[dict[str, Any]]:
    lines = []
    for letter, settings in by_letter.items():
        norms, delays = [], []
        for setting in settings:
            runs = [run(setting, seed) for seed in range(seeds)]
            norms.append([norm for norm, _ in runs])
            delays.append(max(delay for _, delay in runs))
            print(f"{setting}: {np.mean(norms[-1]):.3g}, delay at most {delays[-1]}", file=sys.stderr, flush=True)
        found, error = slope([setting.product for setting in settings], norms)
        lines.append(
            {
                "varied": letter,
                "slope": found,
                "error": error,
                "holds": abs(found + 0.5) <= error + tolerance,
                "settings": [asdict(setting) for setting in settings],
                "norms": norms,
                "delays": delays,
            }
        )
    return lines


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    p = argparse.ArgumentParser(prog="bench.rate", description=__doc__.splitlines()[0] if __doc__ else None)
    p.add_argument("--T", type=int, default=500, help="global steps, with M = p = B = 2, to begin with (500)")
    p.add_argument("--doublings", type=int, default=4, help="of each of T, M, p and B (4)")
    p.add_argument("--seeds", type=int, default=8, help="(8)")
    p.add_argument("--tolerance", type=float, default=0.0, help="allowed beside the error bars (0)")
    p.add_argument("--real", action="store_true", help="also by real processes, over MPI")
    p.add_argument("--real-doublings", type=int, default=3, help="(3)")
    p.add_argument("--real-seeds", type=int, default=4, help="(4)")
    p.add_argument("--run-dir", type=Path, default=Path("runs/rate"), help="of the real runs (runs/rate)")
    p.add_argument("--output", "-o", type=Path, metavar="FILE", help="(rate.png in --run-dir)")
    p.add_argument("--json", action="store_true")
    return p.parse_args(arguments)


def _draw(groups: Mapping[str, Sequence[Mapping[str, Any]]], output: Path) -> None:
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    from hsa2c.observe.plot import STYLE, save

    titles = {"simulated": "over the simulated clock", "real": "real processes, over MPI"}
    with rc_context(STYLE):
        figure = Figure(figsize=(8 if len(groups) == 1 else 12, 5.5), dpi=120, layout="constrained")
        panels = figure.subplots(1, len(groups), squeeze=False, sharey=True)[0]
        for axes, (group, lines) in zip(panels, groups.items(), strict=True):
            _draw_lines(axes, lines)
            title = "Corollary 1: rates by Eq. 9, robust regression"
            axes.set_title(title if len(groups) == 1 else f"Corollary 1, {titles[group]}", loc="left")
        panels[0].set_ylabel("mean squared norm of the gradient")
        save(figure, output)


def _draw_lines(axes: Any, lines: Sequence[Mapping[str, Any]]) -> None:
    from hsa2c.observe.plot import COLOURS

    xs = [np.array([math.prod(setting.values()) for setting in line["settings"]]) for line in lines]
    for line, x, colour, marker in zip(lines, xs, COLOURS, "os^D", strict=False):
        y = np.array(line["norms"])
        error = 2 * y.std(axis=1, ddof=1) / math.sqrt(y.shape[1])
        label = f"{line['varied']} varied: slope {line['slope']:.2f} ± {line['error']:.2f}"
        axes.errorbar(x, y.mean(axis=1), yerr=error, color=colour, marker=marker, capsize=3, label=label)
    ends = np.array([min(x.min() for x in xs), max(x.max() for x in xs)])
    first, at = float(np.mean(lines[0]["norms"][0])), xs[0][0]
    axes.plot(ends, first * (ends / at) ** -0.5, color="#777777", linestyle="--", label="slope -1/2")
    axes.set_xscale("log")
    axes.set_yscale("log")
    axes.set_xlabel("T M p B")
    axes.legend()


if __name__ == "__main__":
    sys.exit(main())
