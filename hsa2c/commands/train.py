"""The command that trains, for any application: options, YAML and defaults into a configuration, a run directory, and
the launch.

Loads neither torch nor MPI: bad input is told within a second, before anything is written or started.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass

from hsa2c import application
from hsa2c.application import Application
from hsa2c.cluster.allocation import lone_task
from hsa2c.cluster.world import World, find_world
from hsa2c.commands import APPLICATION, batch, replay
from hsa2c.commands.choice import as_typed
from hsa2c.commands.choice import check as check_run
from hsa2c.commands.options import guarded
from hsa2c.commands.run_options import given, parser
from hsa2c.errors import EXIT_DONE, ConfigError, FinishedError
from hsa2c.run import begin
from hsa2c.run import directory as rundir
from hsa2c.run.launcher import Launch, check, join, launch
from hsa2c.words import CommandWords


def prepared(name: str, app: Application, options: argparse.Namespace, world: World) -> rundir.Run:
    """The run that is to begin, or to go on, of the application in the module of this name; nothing is written yet."""
    fields = given(app.command, options)
    if options.resume is not None:
        check_run(options.resume, name)
        run = begin.resume(app, options.resume, fields, options.config, world)
    elif options.go_on and fields.get("output.name") is None:
        raise ConfigError("--go-on: needs the run's --name")
    else:
        run = begin.prepare(app, fields, options.config, world, again=options.go_on or options.slurm is not None)
    run.application = name
    run.remarks = (*run.remarks, *app.remarks(run.config))
    return run


def main(arguments: list[str] | None = None, *, app: str = APPLICATION, prog: str | None = None) -> int:
    """Run the command; gives back the exit code: 0 done, 1 failed, 2 bad input, 130 Ctrl-C, 143 SIGTERM.

    Args:
        arguments: What was typed; None: this process's.
        app: Module of the application.
        prog: What was typed, where it is not the application's own program.
    """
    trained = application.load(app)
    words = as_typed(trained.command, prog, app)
    options = parser(words).parse_args(arguments)
    typed = Typed(app=app, words=words, arguments=sys.argv[1:] if arguments is None else arguments)
    world = find_world()
    return guarded(
        words.program, lambda: _train(typed, trained, options, world), quiet=world.rank != 0 or bool(lone_task())
    )


@dataclass(frozen=True, kw_only=True)
class Typed:
    """A command line that trains."""

    app: str
    """Module of the application."""
    words: CommandWords
    arguments: Sequence[str]
    """After the program, and its --app."""


def _train(typed: Typed, app: Application, options: argparse.Namespace, world: World) -> int:
    name = typed.app
    if options.replay is not None or options.recompute:
        return _replay(name, app, options)
    batch.check(options, world)
    try:
        run = prepared(name, app, options, world)
    except FinishedError as finished:
        if options.json and world.rank == 0:
            print(json.dumps(rundir.summary(app, finished.directory, EXIT_DONE)))
        raise
    if options.slurm is not None:
        return batch.write(options, run, typed.words, typed.arguments)
    check(app, run.config, world, force=options.force)
    what = Launch(
        app=name,
        asked=run.asked,
        config=run.config,
        directory=run.directory,
        title=app.title(run.config),
        resume_from=run.checkpoint,
        session=run.session,
    )
    if world.rank != 0:
        return join(what, world)
    with run.open():
        what = dataclasses.replace(what, lock=run.lock, fresh=run.fresh)
        code = join(what, world) if world.started_by_mpi else launch(what)
    if options.json:
        print(json.dumps(rundir.summary(app, run.directory, code)))
    elif typed.words.next and sys.stderr.isatty() and rundir.has_checkpoint(run.directory):
        print(f"next: {typed.words.next} {run.directory}", file=sys.stderr)
    return code


def _replay(name: str, app: Application, options: argparse.Namespace) -> int:
    if options.replay is None:
        raise ConfigError("--recompute: goes with --replay RUN")
    others = (options.config, options.resume, options.slurm, options.json or None, options.go_on or None)
    if given(app.command, options) or any(other is not None for other in others):
        raise ConfigError(f"--replay {options.replay}: a repetition takes no other option than --recompute")
    return replay.replay(options.replay, recompute=options.recompute, app=name)
