"""The job: what this process is in it, by its rank; one node without MPI is master and node. Started by
`hsa2c.run.entry`.
"""

from __future__ import annotations

import contextlib
import os
import sys
import threading
import traceback
from typing import Any

from hsa2c.cluster.machine import cap_threads, keep_freed_memory

cap_threads()  # before numpy, torch and OpenCV are loaded below
keep_freed_memory()

from hsa2c.cluster.world import World, find_world  # noqa: E402
from hsa2c.dpsgd.protocols import WorkerPort  # noqa: E402
from hsa2c.errors import EXIT_DONE, EXIT_FAILED, HSA2CError  # noqa: E402
from hsa2c.node.lifetime import die_with_parent  # noqa: E402
from hsa2c.observe.runlog import Journal  # noqa: E402
from hsa2c.run.evaluator import Evaluator, evaluator_of  # noqa: E402
from hsa2c.run.master import direct  # noqa: E402
from hsa2c.run.node import make_pool, work  # noqa: E402
from hsa2c.run.over_mpi import run_follower, run_master, run_node  # noqa: E402
from hsa2c.run.task import Task, parse, place  # noqa: E402
from hsa2c.transport import inprocess  # noqa: E402

_LEAVE_S = 15.0  # how long a node's thread may take to end after the master is done


def main(arguments: list[str] | None = None) -> int:
    """Run this process's part of the job; gives back the exit code."""
    world = find_world()
    if world.started_by_mpi:
        die_with_parent(os.getppid())  # mpiexec, or its daemon on this host
    try:
        return run(parse(arguments), world)
    except HSA2CError as error:  # nobody is there yet whom it could be told
        return _tell(arguments, error)


def _tell(arguments: list[str] | None, error: HSA2CError) -> int:
    """Say in the journal what is wrong before there is a master who could say it; gives back the exit code."""
    print(error, file=sys.stderr, flush=True)
    where, session = place(arguments)
    with contextlib.suppress(OSError), Journal(where, session=session) as journal:
        journal.event("error", " ".join(str(error).splitlines()))
    return EXIT_FAILED


def prepare(arguments: list[str]) -> None:
    """Load and measure what a node will need, in a process that is to be forked for several."""
    try:
        _prepare(arguments)
    except HSA2CError as error:
        raise SystemExit(_tell(arguments, error)) from None


def _prepare(arguments: list[str]) -> None:
    import torch

    torch.set_num_threads(1)
    task = parse(arguments)
    config = task.config_at(0)
    task.app.dim(config)
    task.app.problems(config, 0, 0)
    task.app.describe(config)
    from hsa2c.node import process_pool as pool  # noqa: F401


def run(task: Task, world: World) -> int:
    """Be master, node or both."""
    cluster = task.config.cluster
    masters, nodes, spares = cluster.masters, cluster.nodes, cluster.spares
    if task.replaces is not None:
        return run_node(task, world, task.replaces)
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
        return run_node(task, world, world.rank - masters)
    return run_master(task, world) if world.rank == 0 else run_follower(task, world)


# One node: master and node are threads of one process.


def _run_alone(task: Task) -> int:
    with evaluator_of(task) as evaluator:
        return _run_beside(task, evaluator)


def _run_beside(task: Task, evaluator: Evaluator | None) -> int:
    pool = make_pool(task, 0)
    try:
        port, (node_port,) = inprocess.connect(1, task.limits, task.encoding)
        port.synchronous = task.synchronous
        thread = threading.Thread(target=_node_thread, args=(task, pool, node_port), name="node-0", daemon=True)
        code = direct(task, port, thread.start, "queues", evaluator=evaluator)
        if code == EXIT_DONE:
            thread.join(_LEAVE_S)
        return code
    finally:
        pool.close()


def _node_thread(task: Task, pool: Any, port: WorkerPort) -> None:
    try:
        work(task, pool, port, 0)
    except HSA2CError as error:
        port.fail(str(error))
    except BaseException:
        port.fail(f"failed\n{traceback.format_exc()}")
