"""What looks on while the master works: curves, checkpoints, stop conditions, signals."""

from __future__ import annotations

import json
import signal
import time
from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from hsa2c import signals
from hsa2c.application import RunConfig, Tracker
from hsa2c.dpsgd.protocols import Monitor, Pulled, Push, Vector
from hsa2c.dpsgd.steps import GlobalStep
from hsa2c.errors import HSA2CError, StorageError
from hsa2c.node.pace import Costs
from hsa2c.observe.delta_cosines import DeltaCosines
from hsa2c.observe.per_node import NodeBook
from hsa2c.observe.runlog import RunLog
from hsa2c.run import checkpoint as checkpoints
from hsa2c.run.checkpoint import Checkpoint

_TAU_SAMPLE = 100_000  # delays kept between two rows, for the histogram
_RECORD_EVERY_S = 30.0  # between two lines of nodes.jsonl, whatever the rows' interval
_FAULTS = (
    "actor_learners_lost",
    "nodes_lost",
    "nodes_back",
    "gradients_refused",
    "deltas_refused",
    "checkpoints_unwritten",
)


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
    """

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
    ) -> None:
        self._config = config
        self._plain = plain
        self._identity = identity
        self._checkpoints = directory / "checkpoints"
        self._log = log
        self._tracker = tracker
        self._step = step
        self._nodes = config.cluster.nodes
        self._elapsed_before_s = float(counters.get("elapsed_s", 0.0))
        self._exchanges = int(counters.get("exchanges", 0))
        self._session = session
        self._best: float | None = counters.get("best_saved")
        self._states: dict[int, Vector] = dict(enumerate(states))
        self._fresh: set[int] = set()
        self._t = int(counters.get("global_steps", 0))
        self._started_at: float | None = None
        self._row_at = self._checkpoint_at = time.monotonic()
        self._exchanges_at_row = self._exchanges
        self._taus: list[int] = []
        self._delta_bytes = self._v_bytes = 0
        self._book = NodeBook(self._nodes)
        self._cosines = DeltaCosines()
        self._record_at = self._row_at
        self._slept_s = self._processor_at_s = 0.0
        self._reason: str | None = None
        self._worried = False
        self._updates = int(counters.get("updates_applied", 0))
        self._lost: set[int] = set()
        self._paces: dict[int, dict[str, Any]] = {}
        self._faults = {name: int(counters.get(name, 0)) for name in _FAULTS}

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
        return self._elapsed_before_s + time.monotonic() - self._started_at

    def begin(self, transport: str) -> None:
        """Every node is ready: the clock starts.

        Args:
            transport: What carries the messages, for the journal.
        """
        self._started_at = self._row_at = self._checkpoint_at = self._record_at = time.monotonic()
        self._slept_s, self._processor_at_s = 0.0, time.thread_time()
        self._book.begin(self._started_at)
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
            self.stop("asked to stop" if name == "SIGUSR1" else f"signal {name}")

        signals.catch(on_signal)

    # What the master tells.

    def stopping(self) -> bool:
        """See `Monitor.stopping`; also writes the row that is due."""
        now = time.monotonic()
        if self._started_at is not None:
            if now - self._row_at >= self._config.output.log_every_s:
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
                self._book.ready(node, item["ready"].get("host"))
                self._log.event("node_ready", f"node {node} is ready", node=node, **item["ready"])
            elif "applied" in item:
                self._updates += item["applied"]
                self._book.applied(node, item["applied"])
            elif "fault" in item:
                self._hear_fault(node, **item["fault"])
            elif "pace" in item:
                self._hear_pace(node, item["pace"])
            elif "back" in item:
                self._log.event("actor_learner_back", f"node {node}: {item['back']}", node=node)
            else:
                self._count_refused(node, int(item.pop("refused_gradients", 0)))
                self._book.heard(node, item)
                self._tracker.add(node, item)
        reached = self._tracker.reached()
        if reached:
            self.stop(reached)

    def _hear_fault(self, node: int, *, message: str, traceback: str | None, pids: list[int]) -> None:
        self._faults["actor_learners_lost"] += 1
        message = f"node {node}: {message}"
        self._log.event("warning", message, node=node, traceback=traceback, actor_learners=pids)

    def _hear_pace(self, node: int, pace: dict[str, Any]) -> None:
        self._paces[node] = pace
        if pace["why"]:
            self._log.event("pace", f"node {node}: {pace['why']}", node=node, B=pace["B"])

    def _count_refused(self, node: int, gradients: int) -> None:
        if gradients:
            self._faults["gradients_refused"] += gradients
            are = "gradient is" if gradients == 1 else "gradients are"
            self._log.event("warning", f"node {node}: {gradients} {are} not finite, and not used", node=node)

    def lost(self, node: int, why: str) -> None:
        """See `Monitor.lost`."""
        self._lost.add(node)
        self._book.gone(node)
        self._faults["nodes_lost"] += 1
        headline, _, traceback = why.partition("\n")
        self._log.event("node_lost", f"node {node}: {headline}", node=node, traceback=traceback or None)

    def found(self, node: int, how: str) -> None:
        """See `Monitor.found`."""
        if self._lost:
            # A spare has another number than the one whose place it takes.
            self._lost.discard(node if node in self._lost else min(self._lost))
        self._faults["nodes_back"] += 1
        self._log.event("node_back", f"node {node} {how}", node=node)

    def refused(self, node: int, why: str) -> None:
        """See `Monitor.refused`."""
        self._faults["deltas_refused"] += 1
        self._log.event("warning", f"node {node}: {why}, and not used", node=node)

    def slept(self, seconds: float) -> None:
        """See `Monitor.slept`."""
        self._slept_s += seconds

    def kept(self, node: int, state: Vector) -> None:
        """See `Monitor.kept`."""
        if node in self._states and self._states[node].size == state.size:
            np.copyto(self._states[node], state)
        else:
            self._states[node] = state.copy()
        self._fresh.add(node)

    def received(self, push: Push, tau: int) -> None:
        """See `Monitor.received`."""
        self._exchanges += 1
        self._delta_bytes += push.delta_bytes
        self._v_bytes += push.v_bytes
        self._book.pushed(push, tau)
        self._cosines.received(push.node, push.delta)
        if len(self._taus) < _TAU_SAMPLE:
            self._taus.append(tau)

    def stepped(self, t: int, v: Vector) -> None:
        """See `Monitor.stepped`; also writes the checkpoint that is due."""
        self._t = t
        self._cosines.stepped()
        every_s = self._config.output.checkpoint_every_s
        since_s = time.monotonic() - self._checkpoint_at
        # With the optimiser state of every node at hand, v and the states belong together: better now than later.
        complete = len(self._fresh) >= self._nodes - len(self._lost) and since_s >= 0.8 * every_s
        best = self._best
        try:
            if complete or since_s >= every_s:
                self.save(v)
            elif self._tracker.measure(v, due=False) and self._is_best():
                checkpoints.save_best(self._checkpoints, self._checkpoint(v), tell=self._warn)
        except StorageError as error:  # the disk may have room again in a while: better go on than lose the work
            self._best = best  # so the best one is tried again, too
            self._faults["checkpoints_unwritten"] += 1
            self._log.event("warning", f"{error}; going on, and trying again in {every_s:g} s")

    # What the monitor writes.

    def save(self, v: Vector, *, measured: bool = False) -> Path:
        """Write a checkpoint now, and the best one if this is it; `measured` says that the tracker has looked at v."""
        self._checkpoint_at = time.monotonic()
        self._fresh.clear()
        if not measured:
            self._tracker.measure(v, due=True)
        improved = self._is_best()
        checkpoint = self._checkpoint(v)
        keep = self._config.output.keep_checkpoints
        path = checkpoints.save(self._checkpoints, checkpoint, keep=keep, tell=self._warn)
        if improved:
            checkpoints.save_best(self._checkpoints, checkpoint, tell=self._warn)
        self._log.event("checkpoint", f"checkpoint {path.name}", path=str(path), best=improved)
        return path

    def _warn(self, message: str) -> None:
        self._log.event("warning", message)

    def _is_best(self) -> bool:
        """Whether the tracker's quality is better than any saved before; it then counts as saved."""
        quality = self._tracker.quality
        if quality is None or (self._best is not None and quality <= self._best):
            return False
        self._best = quality
        return True

    def _checkpoint(self, v: Vector) -> Checkpoint:
        return Checkpoint(
            v=v,
            momentum=self._step.z,
            optimiser_states=tuple(self._states[node] for node in sorted(self._states)),
            t=self._t,
            counters=self._counters(),
            config=self._plain,
            identity=self._identity,
        )

    def finish(self, v: Vector) -> Path:
        """The last row and the last checkpoint."""
        self._tracker.measure(v, due=True)
        if self._started_at is not None:
            now = time.monotonic()
            self._write_row(now)
            self._record_nodes(now)
            if slowest := self._book.slowest():
                self._log.event("slowest_node", f"slowest: {slowest}")
        path = self.save(v, measured=True)
        self._log.event("stop", self._reason or "stopped", checkpoint=str(path), **self._summary())
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
        return {"elapsed_s": round(self.elapsed_s, 3), "global_steps": self._t, "exchanges": self._exchanges}

    def _counters(self) -> dict[str, Any]:
        return {
            **self._tracker.counters(),
            "global_steps": self._t,
            "exchanges": self._exchanges,
            "updates_applied": self._updates,
            "elapsed_s": self.elapsed_s,
            "sessions": self._session,
            "best_saved": self._best,
            **self._faults,
        }

    def _progress(self) -> float:
        """Share of the run that is done: of its limit on work or on time, whichever is nearer."""
        minutes = self._config.stop.minutes
        by_time = self.elapsed_s / (60 * minutes) if minutes else 0.0
        return min(1.0, max(by_time, self._tracker.progress()))

    def _write_row(self, now: float) -> None:
        seconds = max(now - self._row_at, 1e-9)
        progress = self._progress()
        taus = self._taus
        exchanges = self._exchanges - self._exchanges_at_row
        looks = self._cosines.take()
        self._book.looked(looks.norms, looks.cosines)
        of_nodes, overlaps = self._book.row(now, seconds)
        norms, cosines = ([value for _, value in values] for values in (looks.norms, looks.cosines))
        eta = self._config.optimiser.learning_rate
        row: dict[str, float | int | None] = {
            "elapsed_s": round(self.elapsed_s, 3),
            "rate/eta": None if eta is None else eta * self.rate_scale(),
            **self._tracker.row(seconds),
            "exchanges": self._exchanges,
            "updates_applied": self._updates,
            "global_steps": self._t,
            "speed/exchanges_per_s": exchanges / seconds,
            # On the wire, headers and reports included; None in a run of one node, which has none.
            "speed/delta_bytes_per_exchange": self._delta_bytes / exchanges if self._delta_bytes else None,
            "speed/v_bytes_per_exchange": self._v_bytes / exchanges if self._v_bytes else None,
            "staleness/mean": _mean(taus),
            "staleness/max": max(taus) if taus else None,
            **of_nodes,
            **_pace_row(list(self._paces.values())),
            "delta/norm_mean": _mean(norms),
            "delta/cosine_mean": _mean(cosines),
            "delta/agreement": _mean(looks.agreements),
            **self._load(seconds),
            "rate/rho": float(self._step.rho),
            "nodes/working": self._nodes - len(self._lost),
            **{f"faults/{name}": number for name, number in self._faults.items()},
            "progress": progress,
            "left_s": self.elapsed_s * (1 - progress) / progress if progress > 0 else None,
        }
        if seconds < self._config.output.log_every_s / 2:  # the last row: too short a time to speak of a speed
            row |= {key: None for key in row if key.startswith(("speed/", "time/", "master/"))}
        samples: dict[str, Sequence[float]] = {
            "staleness/tau": taus,
            "staleness/overlap": overlaps,
            "delta/norm": norms,
            "delta/cosine": cosines,
        }
        self._log.row(self._tracker.work, row, {tag: some for tag, some in samples.items() if some})
        if now - self._record_at >= _RECORD_EVERY_S:
            self._record_nodes(now)
        if slow := self._book.warning():
            self._log.event("warning", slow)
        worry = self._tracker.warning()
        if worry and not self._worried:  # once, until it is over
            self._log.event("warning", worry)
        self._worried = worry is not None
        self._row_at, self._exchanges_at_row, self._taus = now, self._exchanges, []
        self._delta_bytes = self._v_bytes = 0

    def _load(self, seconds: float) -> dict[str, float | int | None]:
        """How busy the master was since the last row; call it once for each.

        ``master/busy`` is the wall-clock less what it slept because no message was there. It is what is missing to 1
        that is left for more nodes: sending, disks and waiting for a core count, since no delta is summed meanwhile.
        ``master/processor`` is the seconds of a processor that its thread had, looking for messages included; much less
        than the other, and it waits for something else than messages.
        """
        slept_s, self._slept_s = self._slept_s, 0.0
        before_s, self._processor_at_s = self._processor_at_s, time.thread_time()
        busy, processor = 1.0 - slept_s / seconds, (self._processor_at_s - before_s) / seconds
        return {"master/busy": min(1.0, max(0.0, busy)), "master/processor": processor}

    def _record_nodes(self, now: float) -> None:
        values = {"elapsed_s": round(self.elapsed_s, 3), "seconds": round(now - self._record_at, 3)}
        if nodes := self._book.record():
            self._log.nodes(self._tracker.work, values, nodes)
        self._record_at = now


def _mean(values: Sequence[float]) -> float | None:
    return float(np.mean(values)) if values else None


def _pace_row(paces: list[dict[str, Any]]) -> dict[str, float | int | None]:
    """What the nodes measured last of their exchanges (`hsa2c.node.pace.Costs`): B, seconds, share of time lost."""
    costs = [Costs(**{field.name: pace[field.name] for field in fields(Costs)}) for pace in paces]
    updates_s = [cost.update_s(pace["p"]) for cost, pace in zip(costs, paces, strict=True) if cost.updates]
    B = [pace["B"] for pace in paces]
    return {
        "exchange/B": float(np.mean(B)) if B else None,
        "exchange/B_least": min(B, default=None),
        "exchange/B_most": max(B, default=None),
        "exchange/rate_scale": float(np.mean([pace["rate_scale"] for pace in paces])) if paces else None,
        "exchange/update_s": float(np.mean(updates_s)) if updates_s else None,
        "exchange/seconds": float(np.mean([cost.exchange_s for cost in costs])) if costs else None,
        "exchange/lost_share": float(np.mean([cost.lost_share for cost in costs])) if costs else None,
    }
