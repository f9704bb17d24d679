"""What a rank is told on its command line."""

from __future__ import annotations

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from hsa2c import application
from hsa2c.application import Application, at_node
from hsa2c.cluster.allocation import less_in_allocation
from hsa2c.cluster.machine import share_of_cores
from hsa2c.cluster.sharing import cores_here, nodes_here
from hsa2c.cluster.world import REPLACES
from hsa2c.config.protocol import RunConfig
from hsa2c.run import checkpoint as checkpoints
from hsa2c.transport.codec import Encoding
from hsa2c.transport.messages import Limits


@dataclass(frozen=True, kw_only=True)
class Task:
    """A rank's part of the job."""

    app: Application
    module: str
    """Where it is, for `hsa2c.application.load`."""
    config: RunConfig
    directory: Path
    resume_from: Path | None
    run_id: int
    session: int
    limits: Limits
    arguments: tuple[str, ...] = ()
    """The rank's own, by which the master starts nodes in the place of lost ones."""
    replaces: int | None = None
    """The node in whose place this one was started, while the others train."""
    beside: tuple[int, ...] = ()
    """For each node how many work on its host; empty: all of them do."""
    own_processes: tuple[int, ...] = ()
    """For each node p as its host's line has it, 0 where it has none; empty: no line has."""

    def processes(self, node: int) -> int:
        """P."""
        cluster = self.config.cluster
        own = self.own_processes[node] if self.own_processes else 0
        here = self.beside[node] if self.beside else cluster.nodes
        return own or cluster.processes or share_of_cores(here, less=less_in_allocation(cluster))

    def config_at(self, node: int) -> RunConfig:
        """With this node's p, and what follows from the nodes beside it."""
        nodes = self.config.cluster.nodes
        if self.beside:
            nodes = self.beside[node]
        elif self.replaces is None:  # MPI gives a node that it starts later a world of its own
            nodes = nodes_here(nodes)
        p = self.processes(node)
        config: RunConfig = at_node(self.app, self.config, p, nodes=nodes, cores=cores_here())
        return config

    @property
    def encoding(self) -> Encoding:
        """Of deltas."""
        return Encoding[self.config.dpsgd.delta_dtype.upper()]

    @property
    def synchronous(self) -> bool:
        """Whether all nodes work at the same v."""
        return self.config.dpsgd.exchange == "synchronous"

    def checkpoint(self) -> checkpoints.Checkpoint | None:
        """What is resumed."""
        return None if self.resume_from is None else checkpoints.load(self.resume_from)


def place(arguments: list[str] | None) -> tuple[Path, int]:
    """The run's directory, and which start of it this is, of a rank's command line."""
    options = _parser().parse_args(arguments)
    return options.directory, options.session


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="hsa2c.run.process")
    parser.add_argument("--app", required=True)
    parser.add_argument("--config", required=True, help="JSON")
    parser.add_argument("--directory", required=True, type=Path)
    parser.add_argument("--run-id", required=True, type=int)
    parser.add_argument("--session", required=True, type=int)
    parser.add_argument("--resume-from", type=Path)
    parser.add_argument(REPLACES, type=int)
    parser.add_argument("--beside", type=int, nargs="+", default=())
    parser.add_argument("--own-processes", type=int, nargs="+", default=())
    return parser


def parse(arguments: list[str] | None) -> Task:
    """Read a rank's command line, which the launcher has written; None: this process's."""
    options = _parser().parse_args(arguments)
    app = application.load(options.app)
    config = app.build_config(json.loads(options.config))
    return Task(
        app=app,
        module=options.app,
        config=config,
        directory=options.directory,
        resume_from=options.resume_from,
        run_id=options.run_id,
        session=options.session,
        arguments=tuple(sys.argv[1:] if arguments is None else arguments),
        limits=Limits(absence_s=config.cluster.absence_s),
        replaces=options.replaces,
        beside=tuple(options.beside),
        own_processes=tuple(options.own_processes),
    )
