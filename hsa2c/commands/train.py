"""``python train.py``: options, YAML and defaults into a configuration, a run directory, and the launch.

Loads neither torch nor MPI: bad input is told within a second, before anything is written or started.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hsa2c import application
from hsa2c.application import Application
from hsa2c.cluster.allocation import lone_task
from hsa2c.cluster.world import World, find_world
from hsa2c.commands import batch, replay
from hsa2c.commands.options import OneLineParser, guarded, number_or_auto
from hsa2c.config.loading import assignments
from hsa2c.errors import EXIT_DONE, ConfigError, FinishedError
from hsa2c.run import begin
from hsa2c.run import directory as rundir
from hsa2c.run.launcher import Launch, check, join, launch

PROG = "train.py"
APPLICATION = "agents.application"

_DESCRIPTION = """Train an Atari agent with HSA2C on this machine's cores, or on many machines'.

A value comes from the command line, else from the YAML file of --config, else from the defaults.
--set reaches every field of a configuration file; the others are short for the most used ones."""


def parser() -> OneLineParser:
    """The command line."""
    p = OneLineParser(PROG, _DESCRIPTION)
    what = p.add_argument_group("what to train")
    what.add_argument("--game", help="any one-player game of the ALE: Pong, space_invaders, ALE/Breakout-v5 (Pong)")
    what.add_argument("--config", metavar="FILE", help="YAML file, or the name of a shipped one: pong, paper/hsa2c")
    what.add_argument("--resume", metavar="RUN", type=Path, help="go on with this run directory")
    what.add_argument("--replay", metavar="RUN", type=Path, help="repeat a recorded run serially, and compare v")
    what.add_argument("--recompute", action="store_true", help="with --replay: compute each delta anew, too")
    what.add_argument("--seed", type=int, help="seed of everything random (1)")
    what.add_argument("--set", action="append", default=[], metavar="FIELD=VALUE", help="such as agent.discount=0.995")
    who = p.add_argument_group("who computes")
    who.add_argument("--nodes", type=int, metavar="N", help="nodes beside the master; MPI from 2 on (1)")
    who.add_argument(
        "--hosts",
        metavar="FILE",
        help="hosts to run on, one a line, perhaps slots=N, p=K (those of the Slurm or PBS allocation; this one)",
    )
    who.add_argument("--p", type=int, help="actor-learner processes on each node (the node's share of the cores)")
    who.add_argument("--spares", type=int, metavar="S", help="nodes that wait until another is lost; MPI only (0)")
    who.add_argument("--masters", type=int, metavar="K", help="ranks that hold a slice of v each; MPI only (1)")
    who.add_argument("--restarts", type=int, metavar="R", help="go on by itself after a failure, so many times (0)")
    who.add_argument("--force", action="store_true", help="start more than this host seems to have room for")
    how = p.add_argument_group("how")
    how.add_argument(
        "--B",
        type=number_or_auto,
        metavar="N|auto",
        help="updates of each process between two exchanges with the master; auto: by what an exchange costs (8)",
    )
    how.add_argument(
        "--exchange",
        choices=("auto", "overlap", "paper", "synchronous"),
        help="stop for it, as the paper does, and wait for all nodes, or do not stop (auto)",
    )
    how.add_argument("--M", type=int, help="deltas in a global step (the number of nodes)")
    how.add_argument(
        "--delta-dtype",
        metavar="TYPE",
        help="how deltas go to the master: float32, bfloat16 or int8 (float32)",
    )
    how.add_argument("--rho", type=float, help="global learning rate (such that rho * M / (1 - momentum) = 1)")
    how.add_argument("--momentum", type=float, help="of the global step (0)")
    how.add_argument("--lr", type=float, help="local learning rate, eta")
    stop = p.add_argument_group("when to stop, whichever comes first (never: Ctrl-C writes a checkpoint and ends)")
    stop.add_argument("--agent-steps", type=int, metavar="N", help="actions over all nodes")
    stop.add_argument("--minutes", type=float, metavar="X", help="wall-clock of training, start-up excluded")
    stop.add_argument("--score", type=float, metavar="S", help="mean score of the last 100 training games")
    out = p.add_argument_group("output")
    out.add_argument("--run-dir", metavar="DIR", help="folder that holds runs (runs)")
    out.add_argument("--name", help="name of this run in it (game, date and time)")
    out.add_argument("--go-on", action="store_true", help="go on with the run of this --name if it has a checkpoint")
    out.add_argument("--record", action="store_true", default=None, help="record each delta, for --replay; 2.7 MB each")
    out.add_argument("--json", action="store_true", help="print one JSON object about the run at the end")
    batch.add_options(p)
    return p


#: Option to field of the configuration.
_FIELDS = {
    "game": "game",
    "seed": "seed",
    "nodes": "cluster.nodes",
    "hosts": "cluster.hosts",
    "p": "cluster.processes",
    "spares": "cluster.spares",
    "masters": "cluster.masters",
    "restarts": "cluster.restarts",
    "B": "dpsgd.local_updates",
    "M": "dpsgd.deltas_per_step",
    "delta_dtype": "dpsgd.delta_dtype",
    "exchange": "dpsgd.exchange",
    "rho": "dpsgd.global_rate",
    "momentum": "dpsgd.momentum",
    "lr": "optimiser.learning_rate",
    "agent_steps": "stop.agent_steps",
    "minutes": "stop.minutes",
    "score": "stop.score",
    "run_dir": "output.run_dir",
    "name": "output.name",
    "record": "output.record",
}


def given(options: argparse.Namespace) -> dict[str, Any]:
    """Fields that were set on the command line: ``{"cluster.nodes": 2, ...}``, checked for form only."""
    fields = assignments(options.set)
    for option, dotted in _FIELDS.items():
        value = getattr(options, option)
        if value is not None:
            fields[dotted] = value
    return fields


def prepared(app: Application, options: argparse.Namespace, world: World) -> rundir.Run:
    """The run that is to begin, or to go on; nothing is written yet."""
    fields = given(options)
    if options.resume is not None:
        return begin.resume(app, options.resume, fields, options.config, world)
    if options.go_on and fields.get("output.name") is None:
        raise ConfigError("--go-on: needs the run's --name")
    return begin.prepare(app, fields, options.config, world, again=options.go_on or options.slurm is not None)


def main(arguments: list[str] | None = None) -> int:
    """Run the command; gives back the exit code: 0 done, 1 failed, 2 bad input, 130 Ctrl-C, 143 SIGTERM."""
    options = parser().parse_args(arguments)
    typed = sys.argv[1:] if arguments is None else arguments
    world = find_world()
    return guarded(PROG, lambda: _train(options, world, typed), quiet=world.rank != 0 or bool(lone_task()))


def _train(options: argparse.Namespace, world: World, typed: Sequence[str]) -> int:
    if options.replay is not None or options.recompute:
        return _replay(options)
    app = application.load(APPLICATION)
    batch.check(options, world)
    try:
        run = prepared(app, options, world)
    except FinishedError as finished:
        if options.json and world.rank == 0:
            print(json.dumps(rundir.summary(app, finished.directory, EXIT_DONE)))
        raise
    if options.slurm is not None:
        return batch.write(options, run, PROG, typed)
    check(app, run.config, world, force=options.force)
    what = Launch(
        app=APPLICATION,
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
    elif sys.stderr.isatty() and rundir.has_checkpoint(run.directory):
        print(f"next: python evaluate.py {run.directory}", file=sys.stderr)
    return code


def _replay(options: argparse.Namespace) -> int:
    if options.replay is None:
        raise ConfigError("--recompute: goes with --replay RUN")
    others = (options.config, options.resume, options.slurm, options.json or None, options.go_on or None)
    if given(options) or any(other is not None for other in others):
        raise ConfigError(f"--replay {options.replay}: a repetition takes no other option than --recompute")
    return replay.replay(options.replay, recompute=options.recompute)
