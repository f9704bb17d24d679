"""The ranks of a job of several nodes: the master, others of several masters, nodes.

A node forks its actor-learners first and only then imports MPI: a process that has called MPI_Init must not fork.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import os
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

from hsa2c import interpreter, signals
from hsa2c.cluster import loopback
from hsa2c.cluster.mpiexec import READ_ON
from hsa2c.cluster.world import EXIT_RECORD, REPLACES, World
from hsa2c.errors import EXIT_DONE, EXIT_FAILED, HSA2CError, TransportError
from hsa2c.node.lifetime import leave_signals_to_the_master
from hsa2c.run import exit_record
from hsa2c.run.evaluator import Evaluator, evaluator_of
from hsa2c.run.master import deltas, direct, global_step
from hsa2c.run.node import make_pool, work
from hsa2c.run.task import Task
from hsa2c.transport.messages import Kind
from hsa2c.transport.several_masters import ShardedWorkerPort, follow, parts

if TYPE_CHECKING:
    from hsa2c.transport.mpi.master import MPIMaster
    from hsa2c.transport.mpi.worker import MPIWorker

_LAST_WORDS_S = 1.0  # until others have said or read why a node failed: a message lies in the node's memory


def run_master(task: Task, world: World) -> int:
    """Be the master, or the lead of several; gives back the exit code."""
    with evaluator_of(task) as evaluator:  # forked before the exit record is held: that ends with this process alone
        return _run_master(task, world, evaluator)


def _run_master(task: Task, world: World, evaluator: Evaluator | None) -> int:
    exit_record.hold()
    from hsa2c.transport import mpi

    masters = task.config.cluster.masters
    if not _start_mpi(task, world):
        return EXIT_FAILED
    # A node that MPI spawns knows the world of the one that spawned it: it could reach no other master.
    replaces = _on_one_machine(task) and masters == 1
    replacement = partial(replacement_command, task.arguments) if replaces else None
    own = parts(task.app.dim(task.config), masters)[0]
    port = _master_port(task, 0, own.stop, replacement=replacement)
    links = [mpi.MPILink(number, task.run_id, task.limits) for number in range(1, masters)]
    code = EXIT_FAILED
    try:
        code = direct(task, port, lambda: None, mpi.library(), links, evaluator)
        if code == EXIT_DONE:
            port.flush()
            for link in links:
                link.flush()
    finally:
        exit_record.give(code)
        if code != EXIT_DONE:
            sys.stderr.flush()
            mpi.abort(code)
    if port.unscathed:
        mpi.finish()
    return code


def run_follower(task: Task, world: World) -> int:
    """Be another master than the first; gives back the exit code."""
    from hsa2c.transport import mpi

    if not _start_mpi(task, world):
        return EXIT_FAILED
    config = task.config
    lead = mpi.MPILink(0, task.run_id, task.limits)
    try:
        unscathed = follow(
            lead,
            lambda size: _master_port(task, world.rank, size),
            lambda size: global_step(config, size),
            deltas(config),
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
    from hsa2c.transport import mpi

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
        overlapping=task.config.dpsgd.exchange == "overlap",
    )
    port.synchronous = task.synchronous
    return port


def _on_one_machine(task: Task) -> bool:
    """Whether the launcher has started all ranks, on this machine."""
    return EXIT_RECORD in os.environ and task.config.cluster.hosts is None


def _start_mpi(task: Task, world: World) -> bool:
    """Start MPI; where one machine has all ranks, nothing outside it can connect to them.

    Returns:
        Whether this rank has its place in the world; if not, the first one has said so.
    """
    from hsa2c.transport import mpi

    rank, size = mpi.start()
    signals.catch_again()
    # Not before: in a ready world a signal while it starts ends all ranks, or one would wait for ever for the others.
    if world.rank != 0 or task.replaces is not None:
        leave_signals_to_the_master()
    if _on_one_machine(task):
        loopback.listening(os.getpid(), confining=True)
    if task.replaces is not None or (rank, size) == (world.rank, world.size):
        return True
    if world.rank == 0:
        from hsa2c.observe.runlog import Journal

        started, here = f"rank 0 of {world.size}", f"rank {rank} of {size}"
        said = f"mpiexec started {started}, but {mpi.library()} has {here}: it is not mpiexec's; {READ_ON}"
        with Journal(task.directory, session=task.session) as journal:
            journal.event("error", said)
    return False


def replacement_command(arguments: Sequence[str], node: int) -> list[str]:
    """The command line of a rank, for a node that takes the place of a lost one.

    It begins as a shell that ignores what mpiexec hands on to all ranks: Python would take a while until it does, and
    MPI waits for ever for one that dies before it has called MPI_Init.
    """
    deaf = ["/bin/sh", "-c", 'trap "" INT HUP USR1; exec "$@"', "rank"]
    return [*deaf, *interpreter.command("hsa2c.run.entry", *arguments, REPLACES, str(node))]


def run_node(task: Task, world: World, node: int) -> int:
    """Be a node, perhaps a spare, or in the place of a lost one; gives back the exit code."""
    pool = make_pool(task, node)
    from hsa2c.transport import mpi  # after the fork

    if not _start_mpi(task, world):
        pool.close()
        return EXIT_FAILED
    ports = _node_ports(task, node)
    port = ports[0] if len(ports) == 1 else ShardedWorkerPort(ports, task.app.dim(task.config))
    try:
        work(task, pool, port, node)
    except TransportError as error:
        print(error, file=sys.stderr, flush=True)
        pool.close()
        time.sleep(_LAST_WORDS_S)  # mpiexec may end the other nodes as soon as one has failed: they find it out, too
        return EXIT_FAILED
    except Exception as error:
        # Its processes first: nothing of this node may go on when the master hears of it.
        pool.close()
        port.fail(str(error) if isinstance(error, HSA2CError) else f"failed\n{traceback.format_exc()}")
        time.sleep(_LAST_WORDS_S)
        return EXIT_FAILED
    pool.close()
    if all(port.unscathed for port in ports):
        mpi.finish()
    return EXIT_DONE


def _node_ports(task: Task, node: int) -> list[MPIWorker]:
    """A node's ports, one to each master for its slice of v."""
    from hsa2c.transport import mpi

    limits = task.limits
    if node >= task.config.cluster.nodes:  # a spare waits for as long as nobody is lost
        limits = dataclasses.replace(limits, start_s=math.inf)
    masters, state_dim = task.config.cluster.masters, task.app.layout(task.config).state_size
    return [
        mpi.MPIWorker(
            node,
            part.stop - part.start,
            state_dim if master == 0 else 0,
            task.run_id,
            limits,
            spawned=task.replaces is not None,
            encoding=task.encoding,
            masters=masters,
            master=master,
        )
        for master, part in enumerate(parts(task.app.dim(task.config), masters))
    ]
