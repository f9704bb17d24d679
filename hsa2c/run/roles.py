"""What a node does and what a master does, whatever carries their messages."""

from __future__ import annotations

import json
import os
import socket
import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from hsa2c.application import RunConfig, Tracker
from hsa2c.config.loading import to_dict
from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import MasterPort, Monitor, Vector, WorkerPort
from hsa2c.dpsgd.steps import GlobalStep, constant_factor_rho
from hsa2c.dpsgd.worker import overlapping_worker, worker
from hsa2c.errors import EXIT_DONE, EXIT_FAILED, EXIT_NOT_STARTED, CheckpointError, HSA2CError, ProblemError
from hsa2c.node.pace import Pace, PacedPool
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.task import Task
from hsa2c.transport import inprocess
from hsa2c.transport.master_port import BaseMasterPort
from hsa2c.transport.several_masters import Followers, MasterLink
from hsa2c.transport.waiting import WorkingClock

if TYPE_CHECKING:
    from hsa2c.observe.runlog import RunLog
    from hsa2c.recording.recorder import Recorder
    from hsa2c.run.monitor import RunMonitor

# A node.


def make_pool(task: Task, node: int) -> Any:
    """Fork the actor-learners of a node."""
    import torch

    from hsa2c.node.process_pool import PoolLimits, ProcessPool

    torch.set_num_threads(1)
    checkpoint = task.checkpoint() if task.replaces is None else _newest(task)
    t = checkpoint.t if checkpoint else 0
    states = checkpoint.optimiser_states if checkpoint else ()
    config = task.config_at(node)
    return ProcessPool(
        task.app.problems(config, node, t),
        task.app.layout(config),
        task.processes(node),
        state=states[node % len(states)] if states else None,
        # Somewhat more often than checkpoints are due, so that every node's state is there when one is.
        limits=PoolLimits(keep_s=0.8 * task.config.output.checkpoint_every_s, start_s=task.limits.start_s),
    )


def _newest(task: Task) -> checkpoints.Checkpoint | None:
    """The run's last checkpoint, for the optimiser's state of a node that comes later; none if there is none yet."""
    try:
        return checkpoints.load_newest(task.directory / "checkpoints")[0]
    except CheckpointError:
        return None


def work(task: Task, pool: Any, port: WorkerPort, node: int) -> None:
    """A node, once its processes exist."""
    pool.wait_ready()
    ready = {
        "host": socket.gethostname(),
        "pid": os.getpid(),
        "actor_learners": pool.pids,
        **task.app.describe(task.config_at(node)),
    }
    port.tell(json.dumps([{"ready": ready}]).encode())
    loop = overlapping_worker if task.config.dpsgd.exchange == "overlap" else worker
    pace = _pace(task, len(pool.pids))
    with WorkingClock() as clock:
        loop(port, PacedPool(pool, pace, clock=clock), pace.B)


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


# A master.


def deltas(config: RunConfig) -> int:
    """M."""
    return config.dpsgd.deltas_per_step or config.cluster.nodes


def global_step(config: RunConfig, size: int) -> GlobalStep:
    """Line 3, for a vector of so many numbers."""
    M, mu = deltas(config), config.dpsgd.momentum
    by_rule = constant_factor_rho(M, mu, config.dpsgd.global_factor)
    rho = config.dpsgd.global_rate or by_rule
    return GlobalStep(rho, mu, size, mean_of=M if rho == by_rule else None)


def direct(
    task: Task, port: BaseMasterPort, start_nodes: Callable[[], None], transport: str, links: Sequence[MasterLink] = ()
) -> int:
    """The master, from the first message to the last checkpoint; with links to others, the lead of several."""
    from hsa2c.observe.runlog import Journal, RunLog

    config, checkpoint = task.config, task.checkpoint()
    t = checkpoint.t if checkpoint else 0
    try:
        v = _first_v(task, checkpoint)
    except ProblemError as error:
        with Journal(task.directory, session=task.session) as journal:
            journal.event("error", str(error))
        return EXIT_FAILED
    step = global_step(config, v.size)
    if checkpoint:
        step.z[:] = checkpoint.momentum
    tracker = task.app.tracker(config, checkpoint.counters if checkpoint else {})
    log = RunLog(
        task.directory,
        session=task.session,
        purge_step=tracker.work if checkpoint or task.session > 1 else None,
    )
    followers = Followers(links, v=v, z=step.z, t=t, limits=task.limits) if links else None
    monitor = _monitor(task, checkpoint, log, tracker, step, followers)
    if followers is not None:
        v, step = followers.own_v, global_step(config, followers.own_v.size)
        step.z = followers.own_z
    monitor.catch_signals()
    recorder = _recorder(task, checkpoint, port, v, step, log) if config.output.record else None
    seen: tuple[MasterPort, Monitor] = (port, monitor) if recorder is None else recorder.around(port, monitor)
    try:
        start_nodes()
        if not seen[0].assemble(seen[1]):
            monitor.give_up()
            return EXIT_NOT_STARTED
        monitor.begin(transport)
        master(v, step, *seen, deltas(config), max_delay=config.dpsgd.max_delay, t=t)
        monitor.finish(v)
        if followers is not None:
            port.unscathed = followers.dismiss(port.unscathed)
        return EXIT_DONE
    except HSA2CError as error:
        monitor.fail(str(error), v)
        return EXIT_FAILED
    except Exception:
        monitor.fail(f"the master failed\n{traceback.format_exc()}", v)
        return EXIT_FAILED
    finally:
        if recorder is not None:
            recorder.close(monitor.reason or "failed")
        log.close()


def _first_v(task: Task, checkpoint: checkpoints.Checkpoint | None) -> Vector:
    """V that training begins with, float32 [dim]; the caller's own.

    Raises:
        ProblemError: It is of another length or type than the application says.
    """
    v = np.array(checkpoint.v if checkpoint else task.app.initial(task.config), order="C")
    dim = task.app.dim(task.config)
    if v.dtype != np.float32 or v.shape != (dim,):
        whose = f"v of {task.resume_from}" if checkpoint else "v_0"
        raise ProblemError(f"{whose} is {v.dtype} {list(v.shape)}, must be float32 [{dim}]")
    return v


def _recorder(
    task: Task,
    checkpoint: checkpoints.Checkpoint | None,
    port: BaseMasterPort,
    v: Vector,
    step: GlobalStep,
    log: RunLog,
) -> Recorder:
    from hsa2c.run import recordings

    return recordings.begin(
        task.directory,
        task.session,
        app=task.module,
        config=task.config,
        resumed=task.resume_from,
        rounds_v=not isinstance(port, inprocess.QueueMaster),
        v=v,
        step=step,
        M=deltas(task.config),
        t=checkpoint.t if checkpoint else 0,
        states=checkpoint.optimiser_states if checkpoint else (),
        tell=partial(log.event, "warning"),
    )


def _monitor(
    task: Task,
    checkpoint: checkpoints.Checkpoint | None,
    log: RunLog,
    tracker: Tracker,
    step: GlobalStep,
    followers: Followers | None,
) -> RunMonitor:
    from hsa2c.run.lead_monitor import LeadMonitor
    from hsa2c.run.monitor import RunMonitor

    monitor = RunMonitor if followers is None else partial(LeadMonitor, followers=followers)
    return monitor(
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
