"""The job: what runs as master, as one of several, as node, or (one node, no MPI) as master and node. Started by
`hsa2c.runtime.rank`.

A node forks its actor-learners first and only then imports MPI: a process that has called MPI_Init must not fork.
"""

from __future__ import annotations

import argparse
import contextlib
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hsa2c.runtime.host import cap_threads, keep_freed_memory, share_of_cores

cap_threads()  # before numpy, torch and OpenCV are loaded below
keep_freed_memory()

from hsa2c import checkpoint as checkpoints  # noqa: E402
from hsa2c.config import to_dict  # noqa: E402
from hsa2c.dpsgd import inprocess  # noqa: E402
from hsa2c.dpsgd.codec import Encoding  # noqa: E402
from hsa2c.dpsgd.lifetime import die_with_parent, leave_signals_to_the_master  # noqa: E402
from hsa2c.dpsgd.master import master  # noqa: E402
from hsa2c.dpsgd.pace import Pace, PacedCrew  # noqa: E402
from hsa2c.dpsgd.ports import BaseMasterPort, Kind, Limits  # noqa: E402
from hsa2c.dpsgd.sharded import Followers, Link, ShardedWorkerPort, follow, parts  # noqa: E402
from hsa2c.dpsgd.steps import GlobalStep, constant_factor_rho  # noqa: E402
from hsa2c.dpsgd.transport import MasterPort, Vector, Watch, WorkerPort  # noqa: E402
from hsa2c.dpsgd.worker import overlapping_worker, worker  # noqa: E402
from hsa2c.errors import (  # noqa: E402
    EXIT_DONE,
    EXIT_FAILED,
    EXIT_NOT_STARTED,
    CheckpointError,
    HSA2CError,
    TransportError,
)
from hsa2c.runtime import application, loopback, verdict  # noqa: E402
from hsa2c.runtime.allocation import less_in_allocation  # noqa: E402
from hsa2c.runtime.application import Application, RunConfig, Tracker  # noqa: E402
from hsa2c.runtime.mpiexec import READ_ON  # noqa: E402
from hsa2c.runtime.world import REPLACES, VERDICT, World, find_world  # noqa: E402

if TYPE_CHECKING:
    from hsa2c.dpsgd.mpi import MPIMaster
    from hsa2c.dpsgd.recorder import Recorder
    from hsa2c.runlog import RunLog
    from hsa2c.runtime.watch import MasterWatch

_LAST_WORDS_S = 1.0  # until others have said or read why a node failed: a message lies in the node's memory
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
    beside: tuple[int, ...] = ()
    """For each node how many work on its host; empty: all of them do."""
    own_processes: tuple[int, ...] = ()
    """For each node p as its host's line has it, 0 where it has none; empty: no line has."""

    def processes(self, node: int) -> int:
        """P."""
        cluster = self.config.cluster
        own = self.own_processes[node] if self.own_processes else 0
        here = self.beside[node] if self.beside else cluster.nodes
        return own or cluster.processes or share_of_cores(here, less=less_in_allocation(self.config))

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
    cluster = task.config.cluster
    masters, nodes, spares = cluster.masters, cluster.nodes, cluster.spares
    if task.replaces is not None:
        return _run_node(task, world, task.replaces)
    if world.size == 1 and nodes == 1:
        return _run_alone(task)
    ranks = masters + nodes + spares
    if world.size != ranks:
        whose = "the master's" if masters == 1 else f"those of {masters} masters"
        print(
            f"{nodes} nodes and {spares} spares need {ranks} ranks with {whose}; there are {world.size}",
            file=sys.stderr,
        )
        return EXIT_FAILED
    if world.rank >= masters:
        return _run_node(task, world, world.rank - masters)
    return _run_master(task, world) if world.rank == 0 else _run_follower(task, world)


# One node: master and node are threads of one process.


def _run_alone(task: Task) -> int:
    crew = _make_crew(task, 0)
    try:
        port, (node_port,) = inprocess.connect(1, task.limits, task.encoding)
        port.synchronous = task.synchronous
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
    verdict.hold()
    from hsa2c.dpsgd import mpi

    masters = task.config.cluster.masters
    if not _start_mpi(task, world):
        return EXIT_FAILED
    # A node that MPI spawns knows the world of the one that spawned it: it could reach no other master.
    replaces = _on_one_machine(task) and masters == 1
    own = parts(task.app.dim(task.config), masters)[0]
    port = _master_port(task, 0, own.stop, replacement=replacement_command if replaces else None)
    links = [mpi.MPILink(number, task.run_id, task.limits) for number in range(1, masters)]
    code = EXIT_FAILED
    try:
        code = _direct(task, port, lambda: None, mpi.library(), links)
        if code == EXIT_DONE:
            port.flush()
            for link in links:
                link.flush()
    finally:
        verdict.give(code)
        if code != EXIT_DONE:
            sys.stderr.flush()
            mpi.abort(code)
    if port.unscathed:
        mpi.finish()
    return code


def _run_follower(task: Task, world: World) -> int:
    """Another master than the first."""
    leave_signals_to_the_master()
    from hsa2c.dpsgd import mpi

    if not _start_mpi(task, world):
        return EXIT_FAILED
    config = task.config
    lead = mpi.MPILink(0, task.run_id, task.limits)
    try:
        unscathed = follow(
            lead,
            lambda size: _master_port(task, world.rank, size),
            lambda size: _global_step(config, size),
            _deltas(config),
            limits=task.limits,
            max_delay=config.dpsgd.max_delay,
        )
        lead.flush()
    except Exception as error:
        said = str(error) if isinstance(error, HSA2CError) else f"failed\n{traceback.format_exc()}"
        print(f"master {world.rank}: {said}", file=sys.stderr, flush=True)
        time.sleep(_LAST_WORDS_S)  # the lead finds the same, perhaps, and can say more
        with contextlib.suppress(TransportError):
            lead.send(Kind.FAIL, text=said.encode(errors="replace"))
            time.sleep(_LAST_WORDS_S)
        return EXIT_FAILED
    if unscathed:
        mpi.finish()
    return EXIT_DONE


def _master_port(
    task: Task, master: int, size: int, *, replacement: Callable[[int], list[str]] | None = None
) -> MPIMaster:
    """A master's port for a slice of so many numbers; the optimisers' states go to the lead."""
    from hsa2c.dpsgd import mpi

    cluster = task.config.cluster
    port = mpi.MPIMaster(
        cluster.nodes,
        size,
        task.app.layout(task.config).state_size if master == 0 else 0,
        task.run_id,
        task.limits,
        spares=cluster.spares,
        replacement=replacement,
        encoding=task.encoding,
        masters=cluster.masters,
        master=master,
    )
    port.synchronous = task.synchronous
    return port


def _on_one_machine(task: Task) -> bool:
    """Whether the launcher has started all ranks, on this machine."""
    return VERDICT in os.environ and task.config.cluster.hosts is None


def _start_mpi(task: Task, world: World) -> bool:
    """Start MPI; where one machine has all ranks, nothing outside it can connect to them.

    Returns:
        Whether this rank has its place in the world; if not, the first one has said so.
    """
    from hsa2c.dpsgd import mpi

    rank, size = mpi.start()
    if _on_one_machine(task):
        loopback.listening(os.getpid(), confining=True)
    if task.replaces is not None or (rank, size) == (world.rank, world.size):
        return True
    if world.rank == 0:
        from hsa2c.runlog import Journal

        started, here = f"rank 0 of {world.size}", f"rank {rank} of {size}"
        said = f"mpiexec started {started}, but {mpi.library()} has {here}: it is not mpiexec's; {READ_ON}"
        with Journal(task.directory, session=task.session) as journal:
            journal.event("error", said)
    return False


def replacement_command(node: int) -> list[str]:
    """This rank's own command line, for a node that takes the place of a lost one."""
    return [sys.executable, "-m", "hsa2c.runtime.rank", *sys.argv[1:], REPLACES, str(node)]


def _run_node(task: Task, world: World, node: int) -> int:
    for name in (signal.SIGINT, signal.SIGUSR1):
        signal.signal(name, signal.SIG_IGN)  # the master decides, and says so
    crew = _make_crew(task, node)
    from hsa2c.dpsgd import mpi  # after the fork

    if not _start_mpi(task, world):
        crew.close()
        return EXIT_FAILED
    limits = task.limits
    if node >= task.config.cluster.nodes:  # a spare waits for as long as nobody is lost
        limits = dataclasses.replace(limits, start_s=math.inf)
    cluster = task.config.cluster
    dim, state_dim = task.app.dim(task.config), task.app.layout(task.config).state_size
    ports = [
        mpi.MPIWorker(
            node,
            part.stop - part.start,
            state_dim if master == 0 else 0,
            task.run_id,
            limits,
            spawned=task.replaces is not None,
            encoding=task.encoding,
            masters=cluster.masters,
            master=master,
        )
        for master, part in enumerate(parts(dim, cluster.masters))
    ]
    port = ports[0] if cluster.masters == 1 else ShardedWorkerPort(ports, dim)
    try:
        _work(task, crew, port, node)
    except TransportError as error:
        print(error, file=sys.stderr, flush=True)
        crew.close()
        time.sleep(_LAST_WORDS_S)  # mpiexec may end the other nodes as soon as one has failed: they find it out, too
        return EXIT_FAILED
    except Exception as error:
        # Its processes first: nothing of this node may go on when the master hears of it.
        crew.close()
        port.fail(str(error) if isinstance(error, HSA2CError) else f"failed\n{traceback.format_exc()}")
        time.sleep(_LAST_WORDS_S)
        return EXIT_FAILED
    crew.close()
    if all(port.unscathed for port in ports):
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
        task.processes(node),
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
    loop = overlapping_worker if task.config.dpsgd.exchange == "overlap" else worker
    pace = _pace(task, len(crew.pids))
    loop(port, PacedCrew(crew, pace), pace.B)


def _pace(task: Task, p: int) -> Pace:
    """B, as configured or to be chosen."""
    dpsgd = task.config.dpsgd
    overlapping = dpsgd.exchange == "overlap"
    if dpsgd.local_updates != "auto":
        return Pace(dpsgd.local_updates, p, overlapping=overlapping)
    return Pace(
        1,
        p,
        most=dpsgd.most_local_updates,
        target=dpsgd.exchange_share,
        overlapping=overlapping,
        rate_B=dpsgd.rate_local_updates,
    )


def _deltas(config: RunConfig) -> int:
    """M."""
    return config.dpsgd.deltas_per_step or config.cluster.nodes


def _global_step(config: RunConfig, size: int) -> GlobalStep:
    """Line 3, for a vector of so many numbers."""
    M, mu = _deltas(config), config.dpsgd.momentum
    by_rule = constant_factor_rho(M, mu, config.dpsgd.global_factor)
    rho = config.dpsgd.global_rate or by_rule
    return GlobalStep(rho, mu, size, mean_of=M if rho == by_rule else None)


def _direct(
    task: Task, port: BaseMasterPort, start_nodes: Callable[[], None], transport: str, links: Sequence[Link] = ()
) -> int:
    """The master, from the first message to the last checkpoint; with links to others, the lead of several."""
    from hsa2c.runlog import RunLog

    config, checkpoint = task.config, task.checkpoint()
    t = checkpoint.t if checkpoint else 0
    v = checkpoint.v.copy() if checkpoint else task.app.initial(config)
    step = _global_step(config, v.size)
    if checkpoint:
        step.z[:] = checkpoint.momentum
    tracker = task.app.tracker(config, checkpoint.counters if checkpoint else {})
    log = RunLog(
        task.directory,
        session=task.session,
        purge_step=tracker.work if checkpoint or task.session > 1 else None,
    )
    followers = Followers(links, v=v, z=step.z, t=t, limits=task.limits) if links else None
    watch = _watch(task, checkpoint, log, tracker, step, followers)
    if followers is not None:
        v, step = followers.own_v, _global_step(config, followers.own_v.size)
        step.z = followers.own_z
    watch.catch_signals()
    recorder = _recorder(task, checkpoint, port, v, step, log) if config.output.record else None
    seen: tuple[MasterPort, Watch] = (port, watch) if recorder is None else recorder.around(port, watch)
    try:
        start_nodes()
        if not seen[0].assemble(seen[1]):
            watch.give_up()
            return EXIT_NOT_STARTED
        watch.begin(transport)
        master(v, step, *seen, _deltas(config), max_delay=config.dpsgd.max_delay, t=t)
        watch.finish(v)
        if followers is not None:
            port.unscathed = followers.dismiss(port.unscathed)
        return EXIT_DONE
    except HSA2CError as error:
        watch.fail(str(error), v)
        return EXIT_FAILED
    except Exception:
        watch.fail(f"the master failed\n{traceback.format_exc()}", v)
        return EXIT_FAILED
    finally:
        if recorder is not None:
            recorder.close(watch.reason or "failed")
        log.close()


def _recorder(
    task: Task,
    checkpoint: checkpoints.Checkpoint | None,
    port: BaseMasterPort,
    v: Vector,
    step: GlobalStep,
    log: RunLog,
) -> Recorder:
    from hsa2c.runtime import recordings

    return recordings.begin(
        task.directory,
        task.session,
        app=task.app,
        config=task.config,
        resumed=task.resume_from,
        rounds_v=not isinstance(port, inprocess.QueueMaster),
        v=v,
        step=step,
        M=_deltas(task.config),
        t=checkpoint.t if checkpoint else 0,
        states=checkpoint.optimiser_states if checkpoint else (),
        tell=partial(log.event, "warning"),
    )


def _watch(
    task: Task,
    checkpoint: checkpoints.Checkpoint | None,
    log: RunLog,
    tracker: Tracker,
    step: GlobalStep,
    followers: Followers | None,
) -> MasterWatch:
    from hsa2c.runtime.lead import LeadWatch
    from hsa2c.runtime.watch import MasterWatch

    watch = MasterWatch if followers is None else partial(LeadWatch, followers=followers)
    return watch(
        config=task.config,
        plain=to_dict(task.config),
        identity=task.app.identity(task.config),
        directory=task.directory,
        session=task.session,
        log=log,
        tracker=tracker,
        step=step,
        counters=checkpoint.counters if checkpoint else {},
        states=tuple(state.copy() for state in checkpoint.optimiser_states) if checkpoint else (),
    )


def _parse(arguments: list[str] | None) -> Task:
    parser = argparse.ArgumentParser(prog="hsa2c.runtime.job")
    parser.add_argument("--app", required=True)
    parser.add_argument("--config", required=True, help="JSON")
    parser.add_argument("--directory", required=True, type=Path)
    parser.add_argument("--run-id", required=True, type=int)
    parser.add_argument("--session", required=True, type=int)
    parser.add_argument("--resume-from", type=Path)
    parser.add_argument(REPLACES, type=int)
    parser.add_argument("--beside", type=int, nargs="+", default=())
    parser.add_argument("--own-processes", type=int, nargs="+", default=())
    options = parser.parse_args(arguments)
    app = application.load(options.app)
    config = app.build_config(json.loads(options.config))
    return Task(
        app=app,
        config=config,
        directory=options.directory,
        resume_from=options.resume_from,
        run_id=options.run_id,
        session=options.session,
        limits=Limits(absence_s=config.cluster.absence_s),
        replaces=options.replaces,
        beside=tuple(options.beside),
        own_processes=tuple(options.own_processes),
    )
