"""What a node does, whatever carries its messages."""

from __future__ import annotations

import json
import os
import socket
from typing import Any

from hsa2c.config.sections import DPSGDConfig
from hsa2c.dpsgd.protocols import WorkerPort
from hsa2c.dpsgd.worker import overlapping_worker, worker
from hsa2c.errors import CheckpointError
from hsa2c.node.pace import Pace, PacedPool
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.task import Task
from hsa2c.transport.waiting import WorkingClock


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
        suspect=task.app.suspect(config),
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
    pace = pace_of(task.config.dpsgd, len(pool.pids))
    with WorkingClock() as clock:
        loop(port, PacedPool(pool, pace, clock=clock), pace.B)


def pace_of(dpsgd: DPSGDConfig, p: int) -> Pace:
    """B of a node of p processes, as configured or to be chosen."""
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
