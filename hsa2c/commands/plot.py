"""``python -m hsa2c plot runs/*``: learning curves of several runs in one picture."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from hsa2c import application
from hsa2c.application import Application
from hsa2c.commands import APPLICATION
from hsa2c.commands.choice import parsed
from hsa2c.commands.files import replacing, unused
from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.config.loading import read_yaml
from hsa2c.errors import ConfigError
from hsa2c.observe.plot import plot
from hsa2c.observe.runlog import metrics_path, read_curve
from hsa2c.run.directory import CONFIG

PROG = "hsa2c plot"


def parser(app: Application) -> OneLineParser:
    """The command line."""
    work = _axis(app)
    p = OneLineParser(PROG, "Draw curves of runs into one picture.")
    p.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="run directories")
    p.add_argument(
        "--output", "-o", type=Path, metavar="FILE", help="(curves.png in the run, or in the folder of several)"
    )
    p.add_argument("--x", choices=(work, "minutes"), default=work, help=f"horizontal axis ({work})")
    p.add_argument("--tags", nargs="+", metavar="TAG", help="what to draw; first one large (the application's)")
    return p


def _axis(app: Application) -> str:
    """What `--x` calls work."""
    return app.pictures.unit.replace(" ", "_")


def main(arguments: list[str] | None = None, *, app: str = APPLICATION, prog: str | None = None) -> int:
    """Run the command; gives back the exit code.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
        prog: What was typed, where it is not the application's own program.
    """
    trained = application.load(app)
    options = parsed(parser(trained), arguments, prog)
    return guarded(PROG, lambda: _plot(trained, options))


def _plot(app: Application, options: argparse.Namespace) -> int:
    # runs/* also matches what is no run, such as a README.
    runs = [run for run in options.runs if run.is_dir() or run.suffix == ".jsonl" or not run.exists()]
    tags = options.tags or _tags(app, runs)
    drawable = [run for run in runs if len(runs) == 1 or _has(run, tags[0])]
    output = options.output or unused(_beside(drawable or runs) / "curves.png")
    with replacing(PROG, output):
        plot(
            drawable or runs,
            output,
            tags=tags,
            x="minutes" if options.x == "minutes" else "work",
            step_name=app.pictures.unit,
            labels=app.pictures.labels,
        )
    print(output)
    return 0


def _tags(app: Application, runs: Sequence[Path]) -> Sequence[str]:
    """What an application draws of the first of these runs that says how it is set up."""
    for run in runs:
        with contextlib.suppress(ConfigError):
            return app.drawn(app.build_config(read_yaml(metrics_path(run).parent / CONFIG)))
    return app.pictures.tags or (app.curve.key,)


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
