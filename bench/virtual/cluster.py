"""Puts a virtual cluster together: the run's own algorithms, ports, pace and rates on a simulated clock."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch

from bench.virtual.model import Model
from bench.virtual.monitor import Shown, VirtualMonitor
from hsa2c.application import Application, at_node
from hsa2c.dpsgd.worker import overlapping_worker, worker
from hsa2c.errors import EXIT_FAILED, ConfigError, HSA2CError
from hsa2c.node.pace import PacedPool
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.directory import Run
from hsa2c.run.master import direct
from hsa2c.run.node import pace_of
from hsa2c.run.task import Task
from hsa2c.simulation.clock import SimulatedClock
from hsa2c.simulation.cluster import lives_s, slowness
from hsa2c.simulation.gradients import Gradients
from hsa2c.simulation.learning_pool import LearningPool
from hsa2c.simulation.network import SimulatedWorker, connect
from hsa2c.transport.messages import Limits

_MEASURED_S = 3.0  # of updates, in each process


class _Over(Exception):  # noqa: N818 - not an error
    """The master is done: what nodes still do is of no interest."""


class VirtualCluster:
    """A run whose nodes are simulated, and learn.

    Args:
        app: The application.
        module: Where it is.
        run: The run, open.
        model: What is modelled.
        processes: Real ones that compute.
        minutes: Of this machine's time; None: no limit.
    """

    def __init__(
        self, app: Application, module: str, run: Run, model: Model, *, processes: int, minutes: float | None
    ) -> None:
        torch.set_num_threads(1)
        self._app, self._module, self._run, self._minutes = app, module, run, minutes
        config = run.config
        self._p: int = config.cluster.processes
        checkpoint = checkpoints.load(run.checkpoint) if run.checkpoint else None
        # Each node has a host of its own, with a core for each of its processes.
        node_config = at_node(app, config, self._p, nodes=1, cores=self._p)
        said = dict(model.said) or app.describe(node_config)
        node_config = app.chosen(node_config, said)
        self._layout = app.layout(node_config)
        self.gradients = self._compute(node_config, checkpoint.t if checkpoint else 0, processes)
        self._states = checkpoint.optimiser_states if checkpoint else ()
        self.model = dataclasses.replace(model, said=said)
        self.clock = SimulatedClock()
        self.monitor: VirtualMonitor | None = None
        self._code = EXIT_FAILED
        self._processes = processes

    def _compute(self, node_config: Any, t: int, processes: int) -> Gradients:
        nodes = range(self._run.config.cluster.nodes)
        if not self._layout.in_place:
            raise ConfigError(f"application {self._app.name}: its u is no vector like v, and cannot be simulated here")
        factories = [self._app.problems(node_config, node, t) for node in nodes]
        makes = [partial(factory, index) for factory in factories for index in range(self._p)]
        return Gradients(makes, self._layout.size, processes)

    def measure(self) -> None:
        """How long an update takes here, with as many processes as compute, where nobody has said it."""
        if self.model.timed:
            return
        v = torch.from_numpy(self._app.initial(self._run.config))
        found = self.gradients.measure(0, v, _MEASURED_S)
        update_ms, share = 1000 * found.mean_s, found.gathering_s / found.mean_s
        self.model = dataclasses.replace(self.model, update_ms=round(update_ms, 3), gathering=round(share, 4))

    def train(self) -> int:
        """Let it train; gives back the exit code."""
        config, model = self._run.config, self.model
        self._cluster = c = model.cluster(config, self._p, self._layout)
        limits = Limits(absence_s=config.cluster.absence_s)
        task = Task(
            app=self._app,
            module=self._module,
            config=config,
            directory=self._run.directory,
            resume_from=self._run.checkpoint,
            run_id=0,
            session=self._run.session,
            limits=limits,
        )
        self._port, workers = connect(
            self.clock,
            c.nodes,
            limits,
            node_link=c.link,
            master_link=c.master_link,
            notice_s=c.notice_s,
            masters=c.masters,
            sizes=c.sizes(),
            work=c.work(),
            encoding=task.encoding,
            seed=c.seed,
        )
        self._port.synchronous = task.synchronous
        self._pools = self._make_pools()
        self.clock.start(self._lead, task, partial(self._start_nodes, workers))
        try:
            self._go_on()
        finally:
            self.clock.close()
        return self._code

    def _make_pools(self) -> list[LearningPool]:
        c, states = self._cluster, self._states
        times = self.model.times(c.seed)
        return [
            LearningPool(
                self.gradients,
                range(node * self._p, (node + 1) * self._p),
                self._layout,
                self.clock,
                times,
                state=states[node % len(states)] if states else None,
                slowness=slow,
                exchange_s=c.node_s,
                keep_s=c.keep_s,
            )
            for node, slow in enumerate(slowness(c))
        ]

    def _go_on(self) -> None:
        """Until the master is done. What fails elsewhere the master is told, which keeps what there is."""
        while True:
            try:
                self.clock.run()
            except _Over:
                return
            except HSA2CError as error:
                self.gradients.failure = str(error)

    def _lead(self, task: Task, start_nodes: Callable[[], None]) -> None:
        make = partial(self._watch, task)
        self._code = direct(task, self._port, start_nodes, "a simulated network", monitor_type=make)
        raise _Over

    def _watch(self, task: Task, **rest: Any) -> VirtualMonitor:
        c = self._cluster
        self.monitor = VirtualMonitor(
            clock=self.clock,
            port=self._port,
            gradients=self.gradients,
            pools=self._pools,
            minutes=self._minutes,
            pace=min(1.0, self._processes / (c.nodes * c.cores)),
            **rest,
        )
        self._shown = Shown(self.monitor, self.gradients, task.config, self._minutes)
        self._shown.start()
        return self.monitor

    def _start_nodes(self, workers: list[SimulatedWorker]) -> None:
        """Start the nodes; some of them for a while only."""
        for node, (port, pool, life_s) in enumerate(zip(workers, self._pools, lives_s(self._cluster), strict=True)):
            process = self.clock.start(self._node, node, port, pool)
            if life_s < math.inf:
                self.clock.call_at(life_s, self.clock.kill, process)
                self.clock.call_at(life_s, pool.kill)

    def _node(self, node: int, port: SimulatedWorker, pool: LearningPool) -> None:
        ready = {"host": f"simulated-{node}", "pid": None, "actor_learners": [], **self.model.said}
        dpsgd = self._run.config.dpsgd
        pace = pace_of(dpsgd, self._p)
        loop = overlapping_worker if dpsgd.exchange == "overlap" else worker
        try:
            port.tell(json.dumps([{"ready": ready}]).encode())
            loop(port, PacedPool(pool, pace, clock=self.clock, cpu_clock=lambda: pool.exchanging_cpu_s), pace.B)
        except HSA2CError as error:
            port.fail(str(error))

    def close(self) -> None:
        """End what is shown and the processes."""
        if self.monitor is not None:
            self._shown.close()
        self.gradients.close()
