"""``python -m hsa2c plot runs/*``: learning curves of several runs in one picture."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hsa2c.commands.files import replacing, unused
from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.errors import ConfigError
from hsa2c.observe.plot import DEFAULT_TAGS, plot
from hsa2c.observe.runlog import metrics_path, read_curve

PROG = "hsa2c plot"


def parser() -> OneLineParser:
    """The command line."""
    p = OneLineParser(PROG, "Draw curves of runs into one picture.")
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    p.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help="(curves.png in the run, or in the folder of several)"
    )
    p.add_argument(
        "--x", choices=("agent_steps", "minutes"), default="agent_steps", help="horizontal axis (agent_steps)"
    )
    p.add_argument("--tags", nargs="+", default=list(DEFAULT_TAGS), metavar="TAG", help="what to draw; first one large")
    return p


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives back the exit code."""
    options = parser().parse_args(arguments)
    return guarded(PROG, lambda: _plot(options))


def _plot(options: argparse.Namespace) -> int:
    # runs/* also matches what is no run, such as a README.
    runs = [run for run in options.runs if run.is_dir() or run.suffix == ".jsonl" or not run.exists()]
    drawable = [run for run in runs if len(runs) == 1 or _has(run, options.tags[0])]
    output = options.output or unused(_beside(drawable or runs) / "curves.png")
    with replacing(PROG, output):
        plot(drawable or runs, output, tags=options.tags, x=options.x)
    print(output)
    return 0


def _beside(runs: Sequence[Path]) -> Path:
    """The run's own directory; of several, the folder that has them all."""
    directories = [metrics_path(run).parent for run in runs]
    common = os.path.commonpath([os.path.normpath(each.absolute()) for each in directories]) if directories else "."
    return directories[0] if len(directories) == 1 else Path(os.path.relpath(common))


def _has(run: Path, tag: str) -> bool:
    """Whether there is something to draw; of many runs, one that has just begun must not spoil the picture."""
    try:
        found = bool(np.isfinite(read_curve(run, tag)[2]).any())
    except ConfigError:
        found = False
    if not found:
        print(f"{PROG}: {run}: no value of {tag} yet, left out", file=sys.stderr)
    return found
