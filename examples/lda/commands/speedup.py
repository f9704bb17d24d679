"""``python -m examples.lda speedup SVI_RUN RUN``: TSP, Eq. 12."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np

from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.errors import ConfigError
from hsa2c.observe.runlog import read_curve

PROG = "examples.lda speedup"
_TAG = "perplexity/validation"

_DESCRIPTION = """TSP (Eq. 12): the time that the first run took to a perplexity over the time of the second.

Both must be of the same corpus and split. Without --perplexity, it is the best that both have reached."""


def parser() -> OneLineParser:
    """The command line."""
    p = OneLineParser(PROG, _DESCRIPTION)
    p.add_argument("baseline", metavar="SVI_RUN", type=Path, help="a run with --svi")
    p.add_argument("run", metavar="RUN", type=Path, help="a run of DPSVI")
    p.add_argument("--perplexity", type=float, metavar="P", help="of the validation documents")
    p.add_argument("--json", action="store_true", help="print one JSON object instead of text")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives back the exit code: 0 done, 2 bad input."""
    options = parser().parse_args(arguments)
    return guarded(PROG, lambda: _speedup(options))


def _speedup(options: argparse.Namespace) -> int:
    goal = options.perplexity
    if goal is None:
        goal = max(float(np.nanmin(_curve(run)[1])) for run in (options.baseline, options.run))
    seconds = [time_to(run, goal) for run in (options.baseline, options.run)]
    result = {"perplexity": goal, "baseline_s": seconds[0], "run_s": seconds[1], "tsp": seconds[0] / seconds[1]}
    if options.json:
        print(json.dumps(result))
    else:
        took = " and ".join(f"{s:.2f} s" for s in seconds)
        print(f"to a perplexity of {goal:,.1f}: {took}, TSP (Eq. 12) {result['tsp']:.2f}")
    return 0


def time_to(run: Path, goal: float) -> float:
    """Seconds of training until the perplexity of the validation documents was at most `goal`.

    Raises:
        ConfigError: It never was.
    """
    elapsed_s, perplexity = _curve(run)
    reached = np.flatnonzero(perplexity <= goal)
    if not reached.size:
        raise ConfigError(f"{run}: never reached a perplexity of {goal:g}, its best is {np.nanmin(perplexity):g}")
    return float(elapsed_s[reached[0]])


def _curve(run: Path) -> tuple[Any, Any]:
    _, elapsed_s, perplexity = read_curve(run, _TAG)
    if not np.isfinite(perplexity).any():
        raise ConfigError(f"{run}: has no perplexity of validation documents yet")
    return elapsed_s, perplexity
