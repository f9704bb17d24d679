"""``python -m hsa2c doctor``: finds what wastes a night before a run is started, and says how fast it would be."""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from rich.text import Text

from hsa2c import application, streams
from hsa2c.application import Application
from hsa2c.cluster import allocation
from hsa2c.cluster.machine import cap_threads
from hsa2c.cluster.world import World, find_world
from hsa2c.commands import APPLICATION, run_options
from hsa2c.commands.choice import as_typed
from hsa2c.commands.options import OneLineParser, guarded
from hsa2c.commands.train import prepared
from hsa2c.doctor.examination import Examination
from hsa2c.doctor.finding import Finding, Level, safe
from hsa2c.errors import EXIT_DONE, EXIT_FAILED, ConfigError
from hsa2c.run.launcher import Launch
from hsa2c.words import CommandWords

PROG = "hsa2c doctor"

_DESCRIPTION = """Look for what would stop or spoil a run, before it is started: the options are those of {}.

Each finding is one line, with its cure. Exit code: 0 it is safe to start, 1 it is not, 2 bad input. Within a minute or
so, nothing is left behind; --json prints one object with findings and prediction."""

_STYLES = {Level.OK: "green", Level.WARNING: "yellow", Level.PROBLEM: "bold red"}


def parser(words: CommandWords) -> OneLineParser:
    """The command line: that of the run which is to be started."""
    p = run_options.parser(words)
    p.prog, p.description = PROG, _DESCRIPTION.format(words.program)
    return p


def main(arguments: list[str] | None = None, *, app: str = APPLICATION, prog: str | None = None) -> int:
    """Run the command; gives back the exit code.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
        prog: What was typed, where it is not the application's own program.
    """
    trained = application.load(app)
    words = as_typed(trained.command, prog and "hsa2c train", app)
    options = parser(words).parse_args(arguments)
    return guarded(PROG, lambda: _doctor(app, trained, words, options, find_world()))


def _doctor(name: str, app: Application, words: CommandWords, options: argparse.Namespace, world: World) -> int:
    if world.started_by_mpi:
        raise ConfigError(f"started by mpiexec: it starts its ranks itself, as {words.program} would")
    cap_threads()
    what = _what(name, app, options, world)
    examination = Examination(
        what=what,
        app=app,
        train=words.program if words is app.command else f"{words.program} --app {name}",
        p_given="cluster.processes" in run_options.given(app.command, options),
        found=_printing(to_stderr=options.json),
        progress=lambda text: print(f"{text} ...", file=sys.stderr, flush=True),
    )
    examination.run()
    good = safe(examination.findings)
    if options.json:
        print(json.dumps(_plain(examination, good)))
    else:
        print("safe to start" if good else "not safe to start")
    return EXIT_DONE if good else EXIT_FAILED


def _what(name: str, app: Application, options: argparse.Namespace, world: World) -> Launch:
    """The run as it would be started; nothing is written."""
    run = prepared(name, app, options, world)
    listed = run.config.cluster.hosts
    return Launch(
        app=name,
        asked=run.asked,
        config=_with_absolute_paths(run.config),
        directory=run.directory,
        title=app.title(run.config),
        hosts=allocation.hosts_of(listed) if listed else (),
    )


def _with_absolute_paths(config: Any) -> Any:
    """Ranks may stand elsewhere."""
    run_dir = str(Path(config.output.run_dir).resolve())
    return dataclasses.replace(config, output=dataclasses.replace(config.output, run_dir=run_dir))


def _printing(*, to_stderr: bool) -> Callable[[Finding], None]:
    console = streams.console(stderr=to_stderr, soft_wrap=True)

    def show(finding: Finding) -> None:
        console.print(Text.assemble((f"{finding.level:8}", _STYLES[finding.level]), " ", finding.line()))

    return show


def _plain(examination: Examination, good: bool) -> dict[str, object]:
    """JSON values."""
    return {
        "safe": good,
        "findings": [dataclasses.asdict(finding) for finding in examination.findings],
        "prediction": examination.figures,
    }
