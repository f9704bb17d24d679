"""What looks on while the master works: curves, checkpoints, stop conditions, signals."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from hsa2c import signals
from hsa2c.config.protocol import RunConfig
from hsa2c.dpsgd.protocols import Monitor, Pulled, Push, Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.errors import HSA2CError, StorageError
from hsa2c.observe.runlog import RunLog
from hsa2c.run.activity import Activity, Values
from hsa2c.run.checkpoint_keeper import CheckpointKeeper
from hsa2c.run.evaluations import Evaluations
from hsa2c.run.evaluator import Evaluator
from hsa2c.run.faults import Faults
from hsa2c.tracker import Tracker

_RECORD_EVERY_S = 30.0  # between two lines of nodes.jsonl, whatever the rows' interval
_FIRST_ROWS_S = 1.0  # between two rows at the start: a small task is learnt within seconds


class RunMonitor(Monitor):
    """One run's log book, kept at the master.

    Args:
        config: The run's configuration.
        plain: The same as plain values, for checkpoints.
        identity: What a checkpoint of this run must agree on.
        directory: The run's directory.
        session: Which start of the run it is, from 1.
        log: Where rows and events go.
        tracker: The application's curves.
        step: The global step, whose velocity is part of a checkpoint.
        counters: Those of the checkpoint that this run resumes; empty at the start.
        states: Optimiser states by node, of that checkpoint.
        averages: See `hsa2c.application.Application.averages`.
        clocks: Seconds, and those of a processor that the master's thread has had; a simulated run has its own.
    """

    _started_at: float | None = None
    _ended_at: float | None = None

    def __init__(
        self,
        *,
        config: RunConfig,
        plain: Mapping[str, Any],
        identity: Mapping[str, str],
        directory: Path,
        session: int,
        log: RunLog,
        tracker: Tracker,
        step: GlobalStep,
        counters: Mapping[str, Any],
        states: tuple[Vector, ...],
        averages: int = 0,
        clocks: tuple[Callable[[], float], Callable[[], float]] = (time.monotonic, time.thread_time),
    ) -> None:
        self._config, self._nodes, self._session = config, config.cluster.nodes, session
        self._clock, self._processor_clock = clocks
        self._log, self._tracker, self._step = log, tracker, step
        self._elapsed_before_s = float(counters.get("elapsed_s", 0.0))
        self._updates, self._t = (int(counters.get(name, 0)) for name in ("updates_applied", "global_steps"))
        self._record_at = now = self._clock()
        self._reason: str | None = None
        self._worried = self._signalled = False
        self._activity = Activity(self._nodes, int(counters.get("exchanges", 0)), now, averages)
        self._faults = Faults(log, self._nodes, counters)
        self._keeper = CheckpointKeeper(
            config=config,
            plain=plain,
            identity=identity,
            directory=directory,
            log=log,
            tracker=tracker,
            step=step,
            states=states,
            best=counters.get("best_saved"),
            counters=self._counters,
        )
        self._keeper.begin(now)
        self._evaluations: Evaluations | None = None

    def evaluate_by(self, evaluator: Evaluator, counters: Mapping[str, Any]) -> None:
        """Let v be evaluated meanwhile, and let that choose the best checkpoint; `counters` as for the class."""
        self._evaluations = Evaluations(evaluator, self._keeper, self._log, self._faults, counters)

    @property
    def reason(self) -> str | None:
        """Why training stops; None while it goes on."""
        return self._reason

    @property
    def tracker(self) -> Tracker:
        """The application's curves."""
        return self._tracker

    @property
    def elapsed_s(self) -> float:
        """Seconds of training so far, start-up excluded, earlier sessions included."""
        if self._started_at is None:
            return self._elapsed_before_s
        until = self._clock() if self._ended_at is None else self._ended_at
        return self._elapsed_before_s + until - self._started_at

    def begin(self, transport: str) -> None:
        """Every node is ready: the clock starts.

        Args:
            transport: What carries the messages, for the journal.
        """
        self._started_at = self._record_at = self._clock()
        self._activity.begin(self._started_at, self._processor_clock())
        self._keeper.begin(self._started_at)
        if self._evaluations is not None:
            self._evaluations.begin(self._started_at)
        self._log.event("training", "training", nodes=self._nodes, transport=transport)

    def stop(self, reason: str) -> None:
        """Ask for an end; the first reason counts."""
        self._reason = self._reason or reason

    def catch_signals(self) -> None:
        """INT, TERM, HUP and USR1 (a batch system's warning, or the launcher's word) stop the run in good order, unless
        they are ignored.
        """

        def on_signal(signum: int, _: FrameType | None) -> None:
            # The launcher turns the first Ctrl-C or TERM into USR1, and has told its user what it got.
            name = signal.Signals(signum).name
            self._signalled = True
            self.stop("asked to stop" if name == "SIGUSR1" else f"signal {name}")

        signals.catch(on_signal)

    # What the master tells.

    def stopping(self) -> bool:
        """See `Monitor.stopping`; also writes the row that is due."""
        now = self._clock()
        if self._evaluations is not None:
            self._evaluations.attend(now)
        if self._started_at is not None:
            if now - self._activity.row_at >= self._row_every_s(now):
                self._write_row(now)
            minutes = self._config.stop.minutes
            if minutes is not None and self.elapsed_s >= 60 * minutes:
                self.stop(f"{minutes:g} min of training")
        return self._reason is not None

    def rate_scale(self) -> float:
        """See `Monitor.rate_scale`: falls as `OptimiserConfig.half_after` and `OptimiserConfig.anneal` say."""
        optimiser = self._config.optimiser
        left = 1.0 - self._progress() if optimiser.anneal else 1.0
        if optimiser.half_after is None:
            return left
        return left / (1.0 + self._tracker.work / self._nodes / optimiser.half_after)

    def answered(self, node: int, pulled: Pulled, has: int) -> None:
        """See `Monitor.answered`."""

    def heard(self, node: int, report: bytes) -> None:
        """See `Monitor.heard`."""
        for item in json.loads(report):
            if "ready" in item:
                self._activity.book.ready(node, item["ready"].get("host"))
                self._log.event("node_ready", f"node {node} is ready", node=node, **item["ready"])
            elif "applied" in item:
                self._updates += item["applied"]
                self._activity.book.applied(node, item["applied"])
                self._tracker.applied(node, item["applied"])
            elif "fault" in item:
                self._faults.actor_learner_lost(node, **item["fault"])
            elif "pace" in item:
                self._hear_pace(node, item["pace"])
            elif "back" in item:
                self._log.event("actor_learner_back", f"node {node}: {item['back']}", node=node)
            else:
                self._faults.gradients_refused(node, int(item.pop("refused_gradients", 0)))
                self._activity.book.heard(node, item)
                self._tracker.add(node, item)
        reached = self._tracker.reached()
        if reached:
            self.stop(reached)

    def _hear_pace(self, node: int, pace: dict[str, Any]) -> None:
        self._activity.paced(node, pace)
        if pace["why"]:
            self._log.event("pace", f"node {node}: {pace['why']}", node=node, B=pace["B"])

    def lost(self, node: int, why: str) -> None:
        """See `Monitor.lost`."""
        self._activity.book.gone(node)
        self._faults.node_lost(node, why)

    def found(self, node: int, how: str) -> None:
        """See `Monitor.found`."""
        self._faults.node_back(node, how)

    def refused(self, node: int, why: str) -> None:
        """See `Monitor.refused`."""
        self._faults.delta_refused(node, why)

    def slept(self, seconds: float) -> None:
        """See `Monitor.slept`."""
        self._activity.slept(seconds)

    def kept(self, node: int, state: Vector) -> None:
        """See `Monitor.kept`."""
        self._keeper.kept(node, state)

    def received(self, push: Push, tau: int) -> None:
        """See `Monitor.received`."""
        self._activity.received(push, tau)

    def stepped(self, t: int, v: Vector) -> None:
        """See `Monitor.stepped`; also writes the checkpoint that is due."""
        self._t = t
        self._activity.stepped()
        try:
            self._keeper.stepped(v, self._clock(), working=self._faults.working)
        except StorageError as error:  # the disk may have room again in a while: better go on than lose the work
            self._faults.checkpoint_unwritten(error, self._config.output.checkpoint_every_s)
        if self._evaluations is not None and self._reason is None:
            now, work = self._clock(), self._tracker.work
            self._evaluations.stepped(v, now, step=work, elapsed_s=self.elapsed_s)

    # What the monitor writes.

    def save(self, v: Vector, *, measured: bool = False) -> Path:
        """Write a checkpoint now, and the best one if this is it; `measured` says that the tracker has looked at v."""
        return self._keeper.save(v, self._clock(), measured=measured)

    def finish(self, v: Vector) -> Path:
        """The last row and the last checkpoint."""
        self._tracker.measure(v, due=True)
        self._ended_at = now = self._clock()
        path = self._evaluated_last(v, now)
        if self._started_at is not None:
            self._write_row(now)
            self._record_nodes(now)
            if slowest := self._activity.book.slowest():
                self._log.event("slowest_node", f"slowest: {slowest}")
        path = path or self.save(v, measured=True)
        self._log.event("stop", self._reason or "stopped", checkpoint=str(path), **self._summary())
        return path

    def _evaluated_last(self, v: Vector, now: float) -> Path | None:
        """Evaluate the last v, where v is evaluated; it is saved before, and this gives its path."""
        if self._evaluations is None or self._started_at is None:
            return None
        path = self._keeper.save(v, now, measured=True)
        self._evaluations.finish(v, step=self._tracker.work, elapsed_s=self.elapsed_s, stopping=lambda: self._signalled)
        return path

    def give_up(self) -> None:
        """Stopped before training began: there is nothing to keep."""
        self._log.event("stop", f"{self._reason or 'stopped'}, before training began")

    def fail(self, message: str, v: Vector) -> None:
        """The run cannot go on: say why, keep what there is."""
        headline, _, traceback = message.partition("\n")
        self._log.event("error", headline, traceback=traceback or None)
        if self._started_at is None:
            return
        path: Path | None = None
        try:
            path = self.save(v)
        except HSA2CError as error:  # which may be what the run failed of: a full disk, a v that is not finite
            self._log.event("warning", str(error))
        self._log.event("stop", "failed", checkpoint=path and str(path), **self._summary())

    def _summary(self) -> dict[str, Any]:
        return {"elapsed_s": round(self.elapsed_s, 3), "global_steps": self._t, "exchanges": self._activity.exchanges}

    def _counters(self) -> dict[str, Any]:
        return {
            **self._tracker.counters(),
            "global_steps": self._t,
            "exchanges": self._activity.exchanges,
            "updates_applied": self._updates,
            "elapsed_s": self.elapsed_s,
            "sessions": self._session,
            "best_saved": self._keeper.best,
            **({"evaluations": self._evaluations.values} if self._evaluations else {}),
            **self._faults.counts,
        }

    def _progress(self) -> float:
        """Share of the run that is done: of its limit on work or on time, whichever is nearer."""
        minutes = self._config.stop.minutes
        by_time = self.elapsed_s / (60 * minutes) if minutes else 0.0
        return min(1.0, max(by_time, self._tracker.progress()))

    def _row_every_s(self, now: float) -> float:
        """A quarter of this session so far, within limits: so its curve has points from the start."""
        since_s = now - (now if self._started_at is None else self._started_at)
        return min(self._config.output.log_every_s, max(_FIRST_ROWS_S, since_s / 4))

    def _write_row(self, now: float) -> None:
        seconds = max(now - self._activity.row_at, 1e-9)
        progress = self._progress()
        values, samples = self._activity.row(now, self._processor_clock())
        eta = self._config.optimiser.learning_rate
        row: Values = {
            "elapsed_s": round(self.elapsed_s, 3),
            "rate/eta": None if eta is None else eta * self.rate_scale(),
            **self._tracker.row(seconds),
            "exchanges": self._activity.exchanges,
            "updates_applied": self._updates,
            "global_steps": self._t,
            **values,
            "rate/rho": float(self._step.rho),
            **(self._evaluations.values if self._evaluations else {}),
            "nodes/working": self._faults.working,
            **{f"faults/{name}": number for name, number in self._faults.counts.items()},
            "progress": progress,
            "left_s": self.elapsed_s * (1 - progress) / progress if progress > 0 else None,
        }
        if seconds < self._row_every_s(now) / 2:  # the last row: too short a time to speak of a speed
            row |= {key: None for key in row if key.startswith(("speed/", "time/", "master/"))}
        self._log.row(self._tracker.work, row, samples)
        if now - self._record_at >= _RECORD_EVERY_S:
            self._record_nodes(now)
        self._warn()

    def _warn(self) -> None:
        """Tell of a slow node, and of what worries the application: each once, until it is over."""
        if slow := self._activity.book.warning():
            self._log.event("warning", slow)
        worry = self._tracker.warning()
        if worry and not self._worried:
            self._log.event("warning", worry)
        self._worried = worry is not None

    def _record_nodes(self, now: float) -> None:
        values = {"elapsed_s": round(self.elapsed_s, 3), "seconds": round(now - self._record_at, 3)}
        if nodes := self._activity.book.record():
            self._log.nodes(self._tracker.work, values, nodes)
        self._record_at = now
