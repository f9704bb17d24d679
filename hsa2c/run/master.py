"""What a master does, whatever carries its messages."""

from __future__ import annotations

import traceback
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from hsa2c.application import tracker_of
from hsa2c.config.loading import to_dict
from hsa2c.config.protocol import RunConfig
from hsa2c.dpsgd.master import master
from hsa2c.dpsgd.protocols import MasterPort, Monitor, Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.errors import EXIT_DONE, EXIT_FAILED, EXIT_NOT_STARTED, HSA2CError
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.task import Task
from hsa2c.transport import inprocess
from hsa2c.transport.master_port import BaseMasterPort
from hsa2c.transport.several_masters import Followers, MasterLink

if TYPE_CHECKING:
    from hsa2c.observe.runlog import RunLog
    from hsa2c.recording.recorder import Recorder
    from hsa2c.run.evaluator import Evaluator
    from hsa2c.run.monitor import RunMonitor


def deltas(config: RunConfig) -> int:
    """M."""
    M = config.dpsgd.deltas_per_step
    assert M is not None, "a rank's configuration is resolved"
    return M


def global_step(config: RunConfig, size: int) -> GlobalStep:
    """Line 3, for a vector of so many numbers."""
    dpsgd = config.dpsgd
    assert dpsgd.global_rate is not None, "a rank's configuration is resolved"
    return GlobalStep(dpsgd.global_rate, dpsgd.momentum, size, mean_of=deltas(config) if dpsgd.rescale_rate else None)


def direct(
    task: Task,
    port: BaseMasterPort,
    start_nodes: Callable[[], None],
    transport: str,
    links: Sequence[MasterLink] = (),
    evaluator: Evaluator | None = None,
    *,
    monitor_type: Callable[..., RunMonitor] | None = None,  # makes what looks on, where it is no usual one
) -> int:
    """The master, from the first message to the last checkpoint; with links to others, the lead of several."""
    config, checkpoint = task.config, task.checkpoint()
    t = checkpoint.t if checkpoint else 0
    if (v := _first_v(task, checkpoint)) is None:
        return EXIT_FAILED
    step = _first_step(config, v.size, checkpoint)
    followers = Followers(links, v=v, z=step.z, t=t, limits=task.limits) if links else None
    log, monitor = _monitor(task, checkpoint, step, followers, evaluator, monitor_type)
    if followers is not None:
        v, step = followers.own_v, global_step(config, followers.own_v.size)
        step.z = followers.own_z
    recorder = _recorder(task, checkpoint, port, v, step, log) if config.output.record else None
    seen: tuple[MasterPort, Monitor] = (port, monitor) if recorder is None else recorder.around(port, monitor)
    try:
        start_nodes()
        code = _train(config, seen, monitor, v, step, transport, t)
        if followers is not None and code == EXIT_DONE:
            port.unscathed = followers.dismiss(port.unscathed)
        return code
    except Exception as error:
        said = str(error) if isinstance(error, HSA2CError) else f"the master failed\n{traceback.format_exc()}"
        monitor.fail(said, v)
        return EXIT_FAILED
    finally:
        if recorder is not None:
            recorder.close(monitor.reason or "failed")
        log.close()


def _first_step(config: RunConfig, size: int, checkpoint: checkpoints.Checkpoint | None) -> GlobalStep:
    step = global_step(config, size)
    if checkpoint:
        step.z[:] = checkpoint.momentum
    return step


def _train(
    config: RunConfig,
    seen: tuple[MasterPort, Monitor],
    monitor: RunMonitor,
    v: Vector,
    step: GlobalStep,
    transport: str,
    t: int,
) -> int:
    if not seen[0].assemble(seen[1]):
        monitor.give_up()
        return EXIT_NOT_STARTED
    monitor.begin(transport)
    master(v, step, *seen, deltas(config), max_delay=config.dpsgd.max_delay, t=t)
    monitor.finish(v)
    return EXIT_DONE


def _first_v(task: Task, checkpoint: checkpoints.Checkpoint | None) -> Vector | None:
    """V that training begins with, float32 [dim]; the caller's own.

    None, with an error in the journal, if it is of another length or type than the application says.
    """
    from hsa2c.observe.runlog import Journal

    v = np.array(checkpoint.v if checkpoint else task.app.initial(task.config), order="C")
    dim = task.app.dim(task.config)
    if v.dtype != np.float32 or v.shape != (dim,):
        whose = f"v of {task.resume_from}" if checkpoint else "v_0"
        with Journal(task.directory, session=task.session) as journal:
            journal.event("error", f"{whose} is {v.dtype} {list(v.shape)}, must be float32 [{dim}]")
        return None
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
        recordings.Session(
            app=task.module,
            config=task.config,
            directory=task.directory,
            number=task.session,
            resumed=task.resume_from,
            rounds_v=not isinstance(port, inprocess.QueueMaster),
        ),
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
    step: GlobalStep,
    followers: Followers | None,
    evaluator: Evaluator | None,
    make_monitor: Callable[..., RunMonitor] | None,
) -> tuple[RunLog, RunMonitor]:
    """Open the run's log, and what looks on and writes it; from here on it hears signals."""
    from hsa2c.observe.runlog import RunLog
    from hsa2c.run.lead_monitor import LeadMonitor
    from hsa2c.run.monitor import RunMonitor

    counters = checkpoint.counters if checkpoint else {}
    tracker = tracker_of(task.app, task.config, counters)
    purge_step = tracker.work if checkpoint or task.session > 1 else None
    log = RunLog(task.directory, session=task.session, purge_step=purge_step)
    if make_monitor is None:
        make_monitor = RunMonitor if followers is None else partial(LeadMonitor, followers=followers)
    monitor = make_monitor(
        config=task.config,
        plain=to_dict(task.config),
        identity=task.app.identity(task.config),
        directory=task.directory,
        session=task.session,
        log=log,
        tracker=tracker,
        step=step,
        counters=counters,
        states=tuple(state.copy() for state in checkpoint.optimiser_states) if checkpoint else (),
        averages=task.app.averages(task.config) if followers is None else 0,  # else a slice comes, and not the last
    )
    if evaluator is not None:
        monitor.evaluate_by(evaluator, counters)
    monitor.catch_signals()
    return log, monitor
