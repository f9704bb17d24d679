"""The job: what runs as master, as node, or (one node, no MPI) as both. Started by `hsa2c.runtime.rank`.

A node forks its actor-learners first and only then imports MPI: a process that has called MPI_Init must not fork.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import os
import signal
import socket
import sys
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hsa2c.runtime.host import cap_threads, keep_freed_memory, share_of_cores

cap_threads()  # before numpy, torch and OpenCV are loaded below
keep_freed_memory()

from hsa2c import checkpoint as checkpoints  # noqa: E402
from hsa2c.config import to_dict  # noqa: E402
from hsa2c.dpsgd import inprocess  # noqa: E402
from hsa2c.dpsgd.codec import Encoding  # noqa: E402
from hsa2c.dpsgd.lifetime import die_with_parent  # noqa: E402
from hsa2c.dpsgd.master import master  # noqa: E402
from hsa2c.dpsgd.pace import Pace, PacedCrew  # noqa: E402
from hsa2c.dpsgd.ports import Limits  # noqa: E402
from hsa2c.dpsgd.steps import GlobalStep, constant_factor_rho  # noqa: E402
from hsa2c.dpsgd.transport import MasterPort, WorkerPort  # noqa: E402
from hsa2c.dpsgd.worker import overlapping_worker, worker  # noqa: E402
from hsa2c.errors import (  # noqa: E402
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_NOT_STARTED,
    CheckpointError,
    HSA2CError,
    TransportError,
)
from hsa2c.runtime import application, loopback  # noqa: E402
from hsa2c.runtime.application import Application, RunConfig  # noqa: E402
from hsa2c.runtime.world import REPLACES, VERDICT, World, find_world  # noqa: E402

_LAST_WORDS_S = 1.0  # until the master has read why a node failed: the message lies in the node's memory
_LEAVE_S = 15.0  # how long a node's thread may take to end after the master is done


@dataclass(frozen=True, kw_only=True)
class Task:
    """What a rank is told on its command line."""

    app: Application
    config: RunConfig
    directory: Path
    resume_from: Path | None
    run_id: int
    session: int
    limits: Limits
    replaces: int | None = None
    """The node in whose place this one was started, while the others train."""

    @property
    def processes(self) -> int:
        """P."""
        return self.config.cluster.processes or share_of_cores(self.config.cluster.nodes)

    @property
    def encoding(self) -> Encoding:
        """Of deltas."""
        return Encoding[self.config.dpsgd.delta_dtype.upper()]

    def checkpoint(self) -> checkpoints.Checkpoint | None:
        """What is resumed."""
        return None if self.resume_from is None else checkpoints.load(self.resume_from)


def main(arguments: list[str] | None = None) -> int:
    """Run this process's part of the job; gives back the exit code."""
    task = _parse(arguments)
    world = find_world()
    if world.started_by_mpi:
        die_with_parent(os.getppid())  # mpiexec, or its daemon on this host
    return run(task, world)


def prepare(arguments: list[str]) -> None:
    """Load and measure what a node will need, in a process that is to be forked for several."""
    import torch

    torch.set_num_threads(1)
    task = _parse(arguments)
    task.app.dim(task.config)
    task.app.problems(task.config, 0, 0)
    task.app.describe(task.config)
    from hsa2c.dpsgd import crew  # noqa: F401


def run(task: Task, world: World) -> int:
    """Be master, node or both."""
    nodes, spares = task.config.cluster.nodes, task.config.cluster.spares
    if task.replaces is not None:
        return _run_node(task, task.replaces)
    if world.size == 1 and nodes == 1:
        return _run_alone(task)
    ranks = 1 + nodes + spares
    if world.size != ranks:
        print(
            f"{nodes} nodes and {spares} spares need {ranks} ranks with the master's; there are {world.size}",
            file=sys.stderr,
        )
        return EXIT_FAILED
    return _run_master(task, world) if world.rank == 0 else _run_node(task, world.rank - 1)


# One node: master and node are threads of one process.


def _run_alone(task: Task) -> int:
    crew = _make_crew(task, 0)
    try:
        port, (node_port,) = inprocess.connect(1, task.limits, task.encoding)
        thread = threading.Thread(target=_node_thread, args=(task, crew, node_port), name="node-0", daemon=True)
        code = _direct(task, port, thread.start, "queues")
        if code == EXIT_DONE:
            thread.join(_LEAVE_S)
        return code
    finally:
        crew.close()


def _node_thread(task: Task, crew: Any, port: WorkerPort) -> None:
    try:
        _work(task, crew, port, 0)
    except HSA2CError as error:
        port.fail(str(error))
    except BaseException:
        port.fail(f"failed\n{traceback.format_exc()}")


# Several nodes: every rank is one of these.


def _run_master(task: Task, world: World) -> int:
    from hsa2c.dpsgd import mpi

    cluster = task.config.cluster
    _, size = _start_mpi()
    if size != world.size:
        print(f"MPI started worlds of {size} ranks, not one of {world.size}: use mpiexec", file=sys.stderr)
        return EXIT_FAILED
    dim = task.app.dim(task.config)
    port = mpi.MPIMaster(
        cluster.nodes,
        dim,
        task.app.layout(task.config).state_size,
        task.run_id,
        task.limits,
        spares=cluster.spares,
        replacement=replacement_command if VERDICT in os.environ else None,
        encoding=task.encoding,
    )
    code = EXIT_FAILED
    try:
        code = _direct(task, port, lambda: None, mpi.library())
        if code == EXIT_DONE:
            port.flush()
    finally:
        _give_verdict(code)
        if code != EXIT_DONE:
            sys.stderr.flush()
            mpi.abort(code)
    if port.unscathed:
        mpi.finish()
    return code


def _start_mpi() -> tuple[int, int]:
    """Start MPI; where the launcher has started all ranks, on this machine, nothing outside it can connect to them."""
    from hsa2c.dpsgd import mpi

    rank_and_size = mpi.start()
    if VERDICT in os.environ:
        loopback.listening(os.getpid(), confining=True)
    return rank_and_size


def replacement_command(node: int) -> list[str]:
    """This rank's own command line, for a node that takes the place of a lost one."""
    return [sys.executable, "-m", "hsa2c.runtime.rank", *sys.argv[1:], REPLACES, str(node)]


def _give_verdict(code: int) -> None:
    """Tell the launcher how the run ended: mpiexec's exit code speaks of every rank, those that were replaced too."""
    path = os.environ.get(VERDICT)
    if path:
        Path(path).write_text(str(code))


def _run_node(task: Task, node: int) -> int:
    for name in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)  # the master decides, and says so
    crew = _make_crew(task, node)
    from hsa2c.dpsgd import mpi  # after the fork

    _start_mpi()
    dim = task.app.dim(task.config)
    limits = task.limits
    if node >= task.config.cluster.nodes:  # a spare waits for as long as nobody is lost
        limits = dataclasses.replace(limits, start_s=math.inf)
    port = mpi.MPIWorker(
        node,
        dim,
        task.app.layout(task.config).state_size,
        task.run_id,
        limits,
        spawned=task.replaces is not None,
        encoding=task.encoding,
    )
    try:
        _work(task, crew, port, node)
    except TransportError as error:
        print(error, file=sys.stderr, flush=True)
        crew.close()
        return EXIT_FAILED
    except Exception as error:
        # Its processes first: nothing of this node may go on when the master hears of it.
        crew.close()
        port.fail(str(error) if isinstance(error, HSA2CError) else f"failed\n{traceback.format_exc()}")
        time.sleep(_LAST_WORDS_S)
        return EXIT_FAILED
    crew.close()
    if port.unscathed:
        mpi.finish()
    return EXIT_DONE


# What both have in common.


def _make_crew(task: Task, node: int) -> Any:
    """Fork the actor-learners of a node."""
    import torch

    from hsa2c.dpsgd.crew import CrewLimits, LockFreeCrew

    torch.set_num_threads(1)
    checkpoint = task.checkpoint() if task.replaces is None else _newest(task)
    t = checkpoint.t if checkpoint else 0
    states = checkpoint.optimiser_states if checkpoint else ()
    return LockFreeCrew(
        task.app.problems(task.config, node, t),
        task.app.layout(task.config),
        task.processes,
        state=states[node % len(states)] if states else None,
        # Somewhat more often than checkpoints are due, so that every node's state is there when one is.
        limits=CrewLimits(keep_s=0.8 * task.config.output.checkpoint_every_s, start_s=task.limits.start_s),
    )


def _newest(task: Task) -> checkpoints.Checkpoint | None:
    """The run's last checkpoint, for the optimiser's state of a node that comes later; none if there is none yet."""
    try:
        return checkpoints.load_newest(task.directory / "checkpoints")[0]
    except CheckpointError:
        return None


def _work(task: Task, crew: Any, port: WorkerPort, node: int) -> None:
    """A node, once its processes exist."""
    crew.wait_ready()
    ready = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "actor_learners": crew.pids,
        **task.app.describe(task.config),
    }
    port.tell(json.dumps([{"ready": ready}]).encode())
    follow = overlapping_worker if task.config.dpsgd.exchange == "overlap" else worker
    pace = _pace(task)
    follow(port, PacedCrew(crew, pace), pace.B)


def _pace(task: Task) -> Pace:
    """B, as configured or to be chosen."""
    dpsgd = task.config.dpsgd
    overlapping = dpsgd.exchange == "overlap"
    if dpsgd.local_updates != "auto":
        return Pace(dpsgd.local_updates, task.processes, overlapping=overlapping)
    return Pace(
        1,
        task.processes,
        most=dpsgd.most_local_updates,
        target=dpsgd.exchange_share,
        overlapping=overlapping,
        rate_B=dpsgd.rate_local_updates,
    )


def _direct(task: Task, port: MasterPort, start_nodes: Callable[[], None], transport: str) -> int:
    """The master, from the first message to the last checkpoint."""
    import numpy as np

    from hsa2c.runlog import RunLog
    from hsa2c.runtime.watch import MasterWatch

    config, checkpoint = task.config, task.checkpoint()
    counters = checkpoint.counters if checkpoint else {}
    v = checkpoint.v.copy() if checkpoint else task.app.initial(config)
    M = config.dpsgd.deltas_per_step or config.cluster.nodes
    mu = config.dpsgd.momentum
    by_rule = constant_factor_rho(M, mu, config.dpsgd.global_factor)
    rho = config.dpsgd.global_rate or by_rule
    step = GlobalStep(rho, mu, v.size, mean_of=M if rho == by_rule else None)
    if checkpoint:
        np.copyto(step.z, checkpoint.momentum)
    tracker = task.app.tracker(config, counters)
    log = RunLog(
        task.directory,
        session=task.session,
        purge_step=tracker.work if checkpoint else None,
    )
    watch = MasterWatch(
        config=config,
        plain=to_dict(config),
        identity=task.app.identity(config),
        directory=task.directory,
        session=task.session,
        log=log,
        tracker=tracker,
        step=step,
        counters=counters,
        states=tuple(state.copy() for state in checkpoint.optimiser_states) if checkpoint else (),
    )
    watch.catch_signals()
    try:
        start_nodes()
        if not port.assemble(watch):
            watch.give_up()
            return EXIT_NOT_STARTED
        watch.begin(transport)
        max_delay = config.dpsgd.max_delay
        master(v, step, port, watch, M, max_delay=max_delay, t=checkpoint.t if checkpoint else 0)
        watch.finish(v)
        return EXIT_DONE
    except HSA2CError as error:
        watch.fail(str(error), v)
        return EXIT_FAILED
    except Exception:
        watch.fail(f"the master failed\n{traceback.format_exc()}", v)
        return EXIT_FAILED
    finally:
        log.close()


def _parse(arguments: list[str] | None) -> Task:
    parser = argparse.ArgumentParser(prog="hsa2c.runtime.job")
    parser.add_argument("--app", required=True)
    parser.add_argument("--config", required=True, help="JSON")
    parser.add_argument("--directory", required=True, type=Path)
    parser.add_argument("--run-id", required=True, type=int)
    parser.add_argument("--session", required=True, type=int)
    parser.add_argument("--resume-from", type=Path)
    parser.add_argument(REPLACES, type=int)
    options = parser.parse_args(arguments)
    app = application.load(options.app)
    return Task(
        app=app,
        config=app.build_config(json.loads(options.config)),
        directory=options.directory,
        resume_from=options.resume_from,
        run_id=options.run_id,
        session=options.session,
        limits=Limits(),
        replaces=options.replaces,
    )
